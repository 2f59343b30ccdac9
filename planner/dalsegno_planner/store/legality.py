"""What is not legal in the state that an execution is in, as the error that says so."""

from __future__ import annotations

from uuid import UUID

from dalsegno.errors import StateError
from dalsegno_planner.core.execution import ExecutionState
from dalsegno_planner.core.transitions import Operation, Refusal, transition


def check_transition(operation: Operation, execution_id: UUID, state: ExecutionState) -> ExecutionState:
    """Return the state that an operation leads to.

    Raises:
        StateError: It is not legal from this state, with what to do instead.
    """
    outcome = transition(operation, state)
    if isinstance(outcome, Refusal):
        raise refused(execution_id, state, outcome.reason, outcome.text)
    return outcome


def refused(execution_id: UUID, state: ExecutionState, reason: str, text: str) -> StateError:
    """Return the error for an operation on an execution; the text follows the execution's ID."""
    return StateError(
        f"execution {execution_id} {text}",
        reason=reason,
        fields={"execution": str(execution_id), "state": state.value},
    )
