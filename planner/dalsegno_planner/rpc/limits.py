"""What says how many tasks of a kind run at once."""

from __future__ import annotations

import functools

from dalsegno.v1.definition_pb2 import StepOptions

_LARGEST = 2**31 - 1


@functools.lru_cache(maxsize=1024)
def task_limit(project: str, options: bytes) -> tuple[str, int]:
    """Return what limits a task, and to how many: `limited_by` and `at_most`, as the SQL function of that name does."""
    message = StepOptions.FromString(options)
    if not message.HasField("concurrency"):
        return "", 0
    return f"{project}/{message.concurrency.name}", min(message.concurrency.most, _LARGEST)
