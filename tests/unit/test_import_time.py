"""What importing costs: a script that only decorates functions loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("grpc", "pydantic", "asyncio", "google.protobuf", "obstore", "rich", "typer", "wrapt", "numpy")

PROBE = """
import json, sys
{code}
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def loaded_after(code: str) -> list[str]:
    probe = PROBE.format(code=code, heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    found: list[str] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import dalsegno",
        "from dalsegno import flow, step, checkpoint, pipeline, wait, as_completed, UsageError, ExecutionState",
        "from dalsegno import step\n@step(retries=1)\ndef f(x: int) -> int: return x\nf(1)",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_after(code) == []


def test_a_runner_binds_arguments_without_grpc() -> None:
    code = "import dalsegno.provenance as p, dalsegno.payloads, dalsegno.definitions\np.Provenance().traced(1)"
    assert "grpc" not in loaded_after(code)


def test_every_public_name_is_there() -> None:
    import dalsegno

    for name in dalsegno.__all__:
        assert getattr(dalsegno, name) is not None
    assert set(dalsegno.__all__) <= set(dir(dalsegno))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dalsegno.nothing
