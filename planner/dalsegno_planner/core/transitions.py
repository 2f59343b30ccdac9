"""Which operation is legal from which state of an execution, and where it leads.

=============  =======  =======  =======  =========  =======  =========
operation      pending  running  waiting  completed  failed   cancelled
=============  =======  =======  =======  =========  =======  =========
retry          –        –        –        –          running  running
resume         pending  running  running  –          –        –
cancel         ends     ends     ends     –          –        cancelled
answer         –        running  running  –          –        –
abort_wait     –        ends     ends     –          –        cancelled
expire_wait    –        running  running  –          –        –
time_out       failed   failed   failed   –          –        –
=============  =======  =======  =======  =========  =======  =========

An operation that leads to the state that there is already has nothing to do, so that it can be repeated. `ends` is
the state ``cancelled``. The last two are the database's clock's; all others are somebody's. What executors bring about
is in `BY_ITSELF`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from dalsegno_planner.core.execution import ExecutionState

_PENDING, _RUNNING, _WAITING = ExecutionState.PENDING, ExecutionState.RUNNING, ExecutionState.WAITING
_CANCELLED, _FAILED = ExecutionState.CANCELLED, ExecutionState.FAILED


class Operation(StrEnum):
    """What is done to an execution that is there."""

    RETRY = "retry"
    RESUME = "resume"
    CANCEL = "cancel"
    ANSWER = "answer"
    ABORT_WAIT = "abort_wait"
    EXPIRE_WAIT = "expire_wait"
    TIME_OUT = "time_out"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an operation is not legal: a stable reason, and what is and what to do, to follow the execution's name."""

    reason: str
    text: str


TRANSITIONS: Mapping[Operation, Mapping[ExecutionState, ExecutionState]] = {
    Operation.RETRY: {_FAILED: _RUNNING, _CANCELLED: _RUNNING},
    Operation.RESUME: {_PENDING: _PENDING, _RUNNING: _RUNNING, _WAITING: _RUNNING},
    Operation.CANCEL: {
        _PENDING: _CANCELLED,
        _RUNNING: _CANCELLED,
        _WAITING: _CANCELLED,
        _CANCELLED: _CANCELLED,
    },
    Operation.ANSWER: {_RUNNING: _RUNNING, _WAITING: _RUNNING},
    Operation.ABORT_WAIT: {_RUNNING: _CANCELLED, _WAITING: _CANCELLED, _CANCELLED: _CANCELLED},
    Operation.EXPIRE_WAIT: {_RUNNING: _RUNNING, _WAITING: _RUNNING},
    Operation.TIME_OUT: {_PENDING: _FAILED, _RUNNING: _FAILED, _WAITING: _FAILED},
}

BY_ITSELF: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    # An executor takes it; a pipeline without affected steps has nothing to run.
    _PENDING: frozenset({_RUNNING}),
    # The body waits and nothing else runs, or it ends; a pipeline ends with its last step.
    _RUNNING: frozenset({_WAITING, ExecutionState.COMPLETED, _FAILED}),
}
"""Where what executors report leads."""


def transition(operation: Operation, state: ExecutionState) -> ExecutionState | Refusal:
    """Return the state that an operation leads to, or why it is not legal."""
    return TRANSITIONS[operation].get(state) or _refusal(operation, state)


def _refusal(operation: Operation, state: ExecutionState) -> Refusal:
    reason = "EXECUTION_FINISHED" if state.finished else "EXECUTION_NOT_FINISHED"
    match operation:
        case Operation.RETRY:
            return Refusal(reason, _no_retry(state))
        case Operation.RESUME:
            again = "replay it to run it again" if state is ExecutionState.COMPLETED else "retry it"
            return Refusal(reason, f"is {state}, so there is nothing to resume; {again}")
        case Operation.CANCEL:
            return Refusal(reason, f"is {state} already, so there is nothing to cancel")
        case Operation.TIME_OUT:
            return Refusal(reason, f"is {state} already, so that its deadline means nothing")
        case Operation.ANSWER | Operation.ABORT_WAIT | Operation.EXPIRE_WAIT:
            return Refusal("NO_PENDING_WAIT", f"is {state}, and no wait of it is pending")
    assert_never(operation)


def _no_retry(state: ExecutionState) -> str:
    match state:
        case ExecutionState.COMPLETED:
            return "is completed, so there is nothing to retry; replay it to run it again"
        case ExecutionState.WAITING:
            return "is waiting, so it has not ended; answer what it waits for, or cancel it and retry it then"
        case _:
            return f"is {state}, so it has not ended; wait until it has, or cancel it and retry it then"
