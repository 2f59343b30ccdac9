"""What ``import dalsegno`` costs a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks import budgets
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.samples import Samples, repeated
from tests.benchmarks.session import Session

_RUNS = 15
# Not getrusage: what it calls the maximum is inherited from the process that started this one.
_RESIDENT = """
import {module}
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
_IMPORT_ALONE = """
import time
begin = time.perf_counter()
import dalsegno
print((time.perf_counter() - begin) * 1e3)
"""


def footprint(session: Session) -> Iterator[Figure]:
    """Time of whole processes, of the import alone, and the most memory, beside a process that imports nothing."""
    bare = repeated(_RUNS, lambda: _python("pass"))
    whole = repeated(_RUNS, lambda: _python("import dalsegno"))
    yield Figure("python -c pass", Unit.MILLISECONDS, bare)
    yield Figure("python -c 'import dalsegno'", Unit.MILLISECONDS, whole, budgets.IMPORT_TIME)
    alone = Samples.of(float(_python(_IMPORT_ALONE)) for _ in range(_RUNS))
    yield Figure("of it, the import", Unit.MILLISECONDS, alone)
    if sys.platform == "linux":
        yield Figure("memory of python -c pass", Unit.MEGABYTES, _resident_mb("sys"))
        yield Figure(
            "memory of python -c 'import dalsegno'", Unit.MEGABYTES, _resident_mb("dalsegno"), budgets.IMPORT_MEMORY
        )


def _python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return finished.stdout.strip()


def _resident_mb(module: str) -> Samples:
    return Samples.of([float(_python(_RESIDENT.format(module=module))) / 1e3])
