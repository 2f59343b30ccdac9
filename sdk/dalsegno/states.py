"""The states of executions and invocations, as users and programs see them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ExecutionState", "InvocationState"]


class ExecutionState(StrEnum):
    """State of an execution; the last three are final, though a retry reopens them."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED)


class InvocationState(StrEnum):
    """State of one step call or wait in an execution."""

    PENDING = "pending"
    READY = "ready"
    LEASED = "leased"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REUSED = "reused"
    NOT_REACHED = "not_reached"

    @property
    def finished(self) -> bool:
        return self in _FINISHED_INVOCATION


_FINISHED_INVOCATION = frozenset(
    {
        InvocationState.COMPLETED,
        InvocationState.FAILED,
        InvocationState.CANCELLED,
        InvocationState.REUSED,
        InvocationState.NOT_REACHED,
    }
)
