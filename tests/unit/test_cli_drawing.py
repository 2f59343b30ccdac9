"""Tables of executions, steps and plans, at the width of a terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from dalsegno.cli.divergence_drawing import divergence_drawing
from dalsegno.cli.documents import failure_document
from dalsegno.cli.plan_table import plan_table
from dalsegno.cli.tables import execution_details, executions_table, graph_lines
from dalsegno.cli.value_text import json_form, value_line
from dalsegno.cli.views import ExecutionView, Fate, PlannedView, PlanView, StepView
from dalsegno.cli.wording import ago_text, count_text, seconds_text, short_id
from dalsegno.errors import Divergence, DivergenceKind, DivergentCall, Failure, FailureOrigin
from dalsegno.states import ExecutionState, InvocationState

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
EXEC_ID = "0195a2b4-7c11-7d20-8f5e-3b9d20f1c6aa"
CALL_ID = "0195a2b4-7c11-7d20-8f5e-77aa20f1c6aa"


def drawn(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def execution(**changes: Any) -> ExecutionView:
    values: dict[str, Any] = {
        "exec_id": EXEC_ID,
        "name": "brisk-otter-12",
        "flow": "digits",
        "kind": "pipeline",
        "state": ExecutionState.COMPLETED,
        "created_at": NOW - timedelta(seconds=90),
        "finished_at": NOW - timedelta(seconds=88.5),
        "step_count": 2,
    }
    return ExecutionView(**(values | changes))


STEPS = (
    StepView("load", "load", InvocationState.REUSED, call_id=CALL_ID, started_at=NOW, finished_at=NOW),
    StepView(
        "train",
        "train",
        InvocationState.COMPLETED,
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=0.25),
        upstream=("load",),
        attempt=2,
    ),
)

PLAN = PlanView(
    digest="d" * 64,
    source="brisk-otter-12",
    affected_count=2,
    reused_count=1,
    steps=(
        PlannedView(1, "load", "load", Fate.REUSED, call_id=CALL_ID, seconds=1.5),
        PlannedView(2, "train", "train", Fate.ROOT, reasons=("the sign",), seconds=0.25),
        PlannedView(3, "evaluate", "evaluate", Fate.DOWNSTREAM),
    ),
    waits=("approve",),
    warnings=("load is reused although its code has changed",),
)


def test_a_plan_says_what_reruns_and_why_and_what_is_saved() -> None:
    lines = drawn(plan_table(PLAN))
    assert lines[0] == "If brisk-otter-12 is replayed so:"
    assert "2 of 3 steps re-run, 1 is reused: 1.50 s of work saved" in lines
    assert [line.split() for line in lines[4:7]] == [
        ["·", "load", "reused", "from", "call", "…77aa20f1c6aa", "1.50", "s"],
        ["●", "train", "re-runs", "the", "sign", "250", "ms"],
        ["○", "evaluate", "re-runs", "downstream", "of", "what", "re-runs"],
    ]
    assert "asked again: approve" in lines
    assert "warning: load is reused although its code has changed" in lines


def test_a_plan_of_a_huge_graph_says_how_much_is_not_shown() -> None:
    plan = PlanView("d", "big", affected_count=1, reused_count=999_999, steps=PLAN.steps[:2])
    lines = drawn(plan_table(plan))
    assert "1 of 1,000,000 steps re-run, 999,999 are reused: at least 1.50 s of work saved" in lines
    assert any("and 999,998 more" in line for line in lines)


def test_nothing_is_wider_than_the_terminal() -> None:
    long = "a_step_with_a_name_that_nobody_would_want_to_type_twice_in_a_row_or_even_once"
    plan = PlanView("d", "x", 1, 0, (PlannedView(1, long, long, Fate.ROOT, reasons=("why " * 30,)),))
    for width in (40, 80, 160):
        assert max(map(len, drawn(plan_table(plan), width))) <= width


def test_executions_are_listed_with_what_commands_know_them_by() -> None:
    lines = drawn(executions_table([execution(original_exec_id=CALL_ID)], NOW, "main"))
    assert lines[2].split() == [
        "brisk-otter-12", "3b9d20f1c6aa", "digits", "(replay)", "completed", "1", "min", "ago", "1.50", "s"
    ]  # fmt: skip


def test_names_in_a_list_are_whole_in_any_terminal_and_the_ids_give_way() -> None:
    replayed = execution(name="tranquil-tambourine-6254", original_exec_id=CALL_ID)
    for width, has_id, has_age in ((100, True, True), (80, False, True), (60, False, False)):
        lines = drawn(executions_table([replayed], NOW, "main"), width)
        assert lines[2].split()[0] == "tranquil-tambourine-6254"
        assert "completed" in lines[2]
        assert ("3b9d20f1c6aa" in lines[2], "min ago" in lines[2]) == (has_id, has_age)
        assert max(map(len, lines)) <= width


def test_an_empty_list_offers_the_tour_only_where_there_is_nothing_at_all() -> None:
    assert drawn(executions_table([], NOW, "main")) == [
        "No executions in the project main yet. Take the tour: dalsegno demo"
    ]
    assert drawn(executions_table([], NOW, "main", some=True)) == ["No such executions in the project main."]


def test_what_an_imported_execution_took_does_not_count_from_its_import() -> None:
    imported = execution(created_at=NOW, started_at=NOW - timedelta(days=2), finished_at=NOW - timedelta(days=1))
    assert imported.seconds == timedelta(days=1).total_seconds()


def test_a_graph_without_edges_does_not_break_the_names() -> None:
    wait = StepView("review", "review", InvocationState.COMPLETED, is_wait=True)
    assert drawn(graph_lines(execution(step_count=1), (wait,))) == ["brisk-otter-12  digits, 1 step", "  ? review"]


def test_an_execution_is_shown_with_inputs_result_and_steps() -> None:
    shown = execution(inputs={"rate": 0.1, "topic": "x"}, overridden_inputs=("rate",), result=[1, 2])
    text = "\n".join(drawn(execution_details(shown, STEPS)))
    assert "brisk-otter-12  completed" in text
    assert EXEC_ID in text
    assert "0.1  (changed by this replay)" in text
    assert "[1, 2]" in text
    assert "attempt 2" in text
    assert "from call …77aa20f1c6aa" in text


def test_a_failure_is_shown_with_its_traceback_and_markup_is_left_alone() -> None:
    failure = Failure(FailureOrigin.USER_CODE, "[bold]no[/bold]", "builtins:KeyError", "Traceback …", "train", 1)
    text = "\n".join(drawn(execution_details(execution(state=ExecutionState.FAILED, failure=failure), ())))
    assert "failed in train (user code): KeyError: [bold]no[/bold]" in text
    assert "Traceback …" in text


def test_an_exception_without_a_message_ends_without_a_colon() -> None:
    failure = Failure(FailureOrigin.USER_CODE, "", "bdb:BdbQuit", None, "train", 1)
    lines = drawn(execution_details(execution(state=ExecutionState.FAILED, failure=failure), ()))
    assert lines[-1] == "failed in train (user code): BdbQuit"


def test_who_cancelled_an_execution_is_not_told_that_it_failed() -> None:
    failure = Failure(FailureOrigin.UNKNOWN, "cancelled: the wait 'go' was aborted", reason="CANCELLED")
    lines = drawn(execution_details(execution(state=ExecutionState.CANCELLED, failure=failure), ()))
    assert lines[-1] == "cancelled: the wait 'go' was aborted"


DIVERGENCE = Divergence(
    DivergenceKind.REORDERED_CALL,
    position=3,
    expected=DivergentCall("draft", "draft", position=3, digests={"notes": "3f9ac21b77"}),
    actual=DivergentCall("publish", "publish", position=4, digests={"draft": "91bc02aa77"}),
    before=(DivergentCall("load", "load", position=1), DivergentCall("research", "research", position=2)),
    following=(DivergentCall("publish", "publish", position=4), DivergentCall("approve", "approve", True, 5)),
)


def test_a_divergence_is_drawn_as_the_difference_of_the_two_sequences() -> None:
    failure = Failure(FailureOrigin.DIVERGENCE, "call 3 is …", divergence=DIVERGENCE)
    failed = execution(kind="flow", state=ExecutionState.FAILED, failure=failure)
    lines = drawn(execution_details(failed, ()))
    assert [line.strip() for line in lines[lines.index("failed (divergence): call 3 is …") + 2 :]] == [
        "Calls (− recorded, + made now):",
        "1 load",
        "2 research",
        "− 3 draft(notes=3f9ac21b)",
        "+ 3 publish(draft=91bc02aa)  recorded as call 4",
        "4 publish  recorded next",
        "5 wait approve",
    ]
    document = failure_document(failure)
    assert document is not None
    found = document["divergence"]
    assert isinstance(found, dict)
    assert (found["kind"], found["position"]) == ("reordered_call", 3)
    assert found["actual"] == {
        "invocation_id": "publish",
        "name": "publish",
        "kind": "step",
        "position": 4,
        "digests": {"draft": "91bc02aa77"},
    }


def test_calls_after_the_end_of_a_body_are_missing_rather_than_not_come_to() -> None:
    lines = [line.strip() for line in drawn(divergence_drawing(replace(DIVERGENCE, actual=None)))]
    assert lines[-3:] == ["+ 3 (the body ended)", "− 4 publish", "− 5 wait approve"]


def test_a_body_that_ended_and_a_graph_that_changed() -> None:
    ended = replace(DIVERGENCE, kind=DivergenceKind.MISSING_CALL, actual=None, following=())
    assert "+ 3 (the body ended)" in [line.strip() for line in drawn(divergence_drawing(ended))]
    assert drawn(divergence_drawing(Divergence(DivergenceKind.GRAPH_CHANGED))) == []


def test_warnings_of_an_execution_are_shown() -> None:
    shown = execution(warnings=("2 recorded calls were not made: a, b",))
    assert "warning: 2 recorded calls were not made: a, b" in drawn(execution_details(shown, ()))


def test_a_graph_names_what_each_step_takes_something_from() -> None:
    lines = drawn(graph_lines(execution(), STEPS, hidden=3))
    assert [line.split() for line in lines[1:3]] == [["●", "load"], ["●", "train", "←", "load"]]
    assert lines[3] == "… and 3 more; --limit shows more of them"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.0 ms"),
        (0.0042, "4.2 ms"),
        (0.0421, "42 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_counts_times_and_ids() -> None:
    assert count_text(1, "step") == "1 step"
    assert count_text(1200, "step") == "1,200 steps"
    assert ago_text(NOW - timedelta(hours=3), NOW) == "3 h ago"
    assert ago_text(NOW - timedelta(days=3), NOW) == "2026-02-26"
    assert ago_text(NOW + timedelta(seconds=2), NOW) == "0 s ago"  # clocks of two machines
    assert short_id(EXEC_ID) == "3b9d20f1c6aa"


def test_values_fit_a_line_and_have_a_json_form() -> None:
    numpy = pytest.importorskip("numpy")
    assert value_line({"a": 1}) == '{"a": 1}'
    assert value_line("x" * 100, width=10) == '"' + "x" * 8 + "…"
    assert value_line(numpy.zeros((3, 2))) == "ndarray 3 × 2 float64"
    assert json_form(numpy.zeros((1, 2))) == [[0.0, 0.0]]
    assert json_form({1: (b"ab", float("nan"))}) == {"1": [{"$type": "bytes", "size": 2}, "nan"]}
    assert json_form(numpy.zeros(20_000)) == {"$type": "numpy.ndarray", "shape": [20_000]}
