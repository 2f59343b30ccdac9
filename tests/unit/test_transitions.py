"""What is legal from which state of an execution, and what is said of the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dalsegno_planner.core.execution import ExecutionState
from dalsegno_planner.core.transitions import BY_ITSELF, TRANSITIONS, Operation, Refusal, transition

STATES = ["pending", "running", "waiting", "completed", "failed", "cancelled"]
TABLE = {
    "retry": [None, None, None, None, "running", "running"],
    "resume": ["pending", "running", "running", None, None, None],
    "cancel": ["cancelled", "cancelled", "cancelled", None, None, "cancelled"],
    "answer": [None, "running", "running", None, None, None],
    "abort_wait": [None, "cancelled", "cancelled", None, None, "cancelled"],
    "expire_wait": [None, "running", "running", None, None, None],
    "time_out": ["failed", "failed", "failed", None, None, None],
}
CELLS = [
    (operation, state, after) for operation, row in TABLE.items() for state, after in zip(STATES, row, strict=True)
]


README = Path(__file__).parents[2] / "README.md"


def test_the_diagram_in_the_readme_is_the_table() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+)", README.read_text("utf-8"), re.MULTILINE))
    steered = {(before, after) for row in TRANSITIONS.values() for before, after in row.items() if before != after}
    by_itself = {(before, after) for before, reached in BY_ITSELF.items() for after in reached}
    assert drawn == {(str(before), str(after)) for before, after in steered | by_itself}


def test_the_table_has_every_operation_and_state() -> None:
    assert set(TABLE) == set(Operation)
    assert set(STATES) == set(ExecutionState)


@pytest.mark.parametrize(("operation", "state", "after"), CELLS)
def test_where_an_operation_leads(operation: str, state: str, after: str | None) -> None:
    outcome = transition(Operation(operation), ExecutionState(state))
    if after is not None:
        assert outcome == ExecutionState(after)
    else:
        assert isinstance(outcome, Refusal)
        assert state in outcome.text


@pytest.mark.parametrize(
    ("operation", "state", "reason", "words"),
    [
        ("retry", "completed", "EXECUTION_FINISHED", "replay it"),
        ("retry", "running", "EXECUTION_NOT_FINISHED", "wait until it has"),
        ("retry", "waiting", "EXECUTION_NOT_FINISHED", "answer what it waits for"),
        ("resume", "failed", "EXECUTION_FINISHED", "retry it"),
        ("resume", "completed", "EXECUTION_FINISHED", "replay it"),
        ("cancel", "failed", "EXECUTION_FINISHED", "nothing to cancel"),
        ("answer", "cancelled", "NO_PENDING_WAIT", "no wait of it is pending"),
    ],
)
def test_a_refusal_says_what_to_do(operation: str, state: str, reason: str, words: str) -> None:
    outcome = transition(Operation(operation), ExecutionState(state))
    assert isinstance(outcome, Refusal)
    assert outcome.reason == reason
    assert words in outcome.text
