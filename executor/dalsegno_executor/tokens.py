"""Tokens as keys: which giving of which task is meant."""

from __future__ import annotations

from typing import TypeAlias

from dalsegno.v1.execution_pb2 import LANE_BULK
from dalsegno.v1.executor_service_pb2 import Report, Task, TaskToken

TaskKey: TypeAlias = tuple[bytes, int, int]
"""Execution, number and epoch."""

BODY = 0
"""The number of a flow's body."""

_TERMINAL = frozenset({"completed", "failed", "returned", "suspended", "attempt_failed"})


def key_of(token: TaskToken) -> TaskKey:
    """Return the key of a token."""
    return token.execution_id, token.number, token.epoch


def token_of(key: TaskKey) -> TaskToken:
    """Return the token of a key."""
    execution_id, number, epoch = key
    return TaskToken(execution_id=execution_id, number=number, epoch=epoch)


def is_live(task: Task) -> bool:
    """Return whether a task goes before those that are not."""
    return task.lane != LANE_BULK


def ends_task(report: Report) -> bool:
    """Return whether a report is the last one of its task."""
    return report.WhichOneof("kind") in _TERMINAL
