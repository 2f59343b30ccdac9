"""Tasks that are lost with their executors again and again: they fail, as what a commit takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_RUNTIME, Failure
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.dispatch.composites import BodyEnd, TaskResult

_NOBODY = None
"""The session of a ready task's token."""


def rows_of_lost(lost: Iterable[Mapping[str, Any]]) -> tuple[list[TaskResult], list[BodyEnd]]:
    """Return the ends of steps' tasks, and of bodies' tasks, from the rows of the query `lost_tasks`."""
    results: list[TaskResult] = []
    ends: list[BodyEnd] = []
    for item, row in enumerate(lost):
        failure = _failure(row).SerializeToString()
        if row["number"] == BODY:
            ends.append(BodyEnd(item, row["execution_id"], row["epoch"], _NOBODY, "failed", None, failure))
        else:
            results.append(
                TaskResult(item, row["execution_id"], row["number"], row["epoch"], _NOBODY, "failed", None, failure, "",
                           None, None, 0.0, "")
            )  # fmt: skip
    return results, ends


def _failure(row: Mapping[str, Any]) -> Failure:
    what = "the body" if row["number"] == BODY else f"step {row['invocation_id']!r}"
    return Failure(
        origin=FAILURE_ORIGIN_RUNTIME,
        message=f"{what} was lost with its executor too often (five times while it ran, fifteen where it was not "
        "seen to run), and is not run again by itself: see why executors end, then retry the execution",
        exception_type="dalsegno.errors:ExecutionError",
        reason="EXECUTOR_LOST",
        invocation_id=row["invocation_id"] or "",
        attempt=0 if row["number"] == BODY else row["attempt"] + 1,
    )
