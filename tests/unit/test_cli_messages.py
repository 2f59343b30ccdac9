"""What the planner answers, as the command line shows it."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from dalsegno.cli.documents import details_document, execution_document, graph_document, step_document
from dalsegno.cli.following import Progress, shown
from dalsegno.cli.messages import execution_view, step_views, wait_view
from dalsegno.cli.planned import plan_view, reason_text
from dalsegno.cli.reporting import OutputFormat, Report
from dalsegno.cli.tables import execution_details, steps_table
from dalsegno.cli.views import Fate, StepView
from dalsegno.client.plans import Plan, PlannedInvocation, Reason, RootReason
from dalsegno.errors import FailureOrigin
from dalsegno.states import ExecutionState, InvocationState
from dalsegno.v1 import definition_pb2, execution_pb2, value_pb2, wait_service_pb2

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def _execution(**fields: Any) -> execution_pb2.Execution:
    message = execution_pb2.Execution(
        id="e1",
        name="brisk-otter",
        flow="digits",
        kind=definition_pb2.DEFINITION_KIND_PIPELINE,
        state=execution_pb2.EXECUTION_STATE_FAILED,
        invocation_count=2,
        **fields,
    )
    message.created_at.FromDatetime(NOW)
    message.inputs.values["rate"].CopyFrom(value_pb2.Payload(codec="json", inline=b"0.1"))
    return message


def _steps() -> list[execution_pb2.Invocation]:
    load = execution_pb2.Invocation(number=1, invocation_id="load", state=execution_pb2.INVOCATION_STATE_REUSED)
    other = execution_pb2.Invocation(number=3, invocation_id="train", state=execution_pb2.INVOCATION_STATE_FAILED)
    other.after.append(2)
    taken = value_pb2.Binding(output=value_pb2.OutputRef(number=1, output="output"))
    other.inputs.bindings["xs"].list.items.append(taken)
    other.inputs.bindings["again"].map.entries.add(text="k").value.CopyFrom(taken)
    other.inputs.bindings["rate"].flow_input = "rate"
    return [load, other]


def test_an_execution_is_read_with_times_inputs_and_failure() -> None:
    failure = execution_pb2.Failure(
        origin=execution_pb2.FAILURE_ORIGIN_USER_CODE, message="no", exception_type="builtins:KeyError"
    )
    view = execution_view(_execution(failure=failure), lambda payload: payload.inline.decode())
    assert (view.kind, view.state, view.created_at) == ("pipeline", ExecutionState.FAILED, NOW)
    assert view.inputs == {"rate": "0.1"}
    assert view.failure is not None
    assert view.failure.origin is FailureOrigin.USER_CODE
    assert (view.result, view.finished_at, view.seconds, view.original_exec_id) == (None, None, None, None)


def test_steps_name_what_they_take_something_from_once() -> None:
    load, train = step_views(_steps())
    assert load.upstream == ()
    assert train.upstream == ("load", "#2")  # the second is not among those that were read
    assert (load.state, train.state) == (InvocationState.REUSED, InvocationState.FAILED)


def test_the_graph_as_a_document_has_nodes_and_edges() -> None:
    view = execution_view(_execution(), lambda payload: None)
    document = graph_document(view, step_views(_steps()))
    assert document["edges"] == [{"from": "load", "to": "train"}, {"from": "#2", "to": "train"}]
    steps = details_document(view, step_views(_steps()), ())["steps"]
    assert isinstance(steps, list)
    assert [step["status"] for step in steps] == ["reused", "failed"]


def test_a_wait_is_read_with_its_schema() -> None:
    message = wait_service_pb2.Wait(
        invocation_id="approve_2", state=wait_service_pb2.WAIT_STATE_PENDING, schema='{"type": "boolean"}'
    )
    view = wait_view(message)
    assert (view.name, view.state, view.question, view.schema) == ("approve_2", "pending", None, {"type": "boolean"})


def test_a_plan_is_put_in_the_order_of_its_steps() -> None:
    plan = Plan.__new__(Plan)
    plan.digest, plan.source_exec_id, plan.warnings, plan.waits = "d", "e1", ("careful",), ()
    plan.affected = [  # type: ignore[assignment]
        PlannedInvocation(2, "train", "train", reasons=(Reason(RootReason.FROM, "train"),)),
        PlannedInvocation(4, "report", "report"),
    ]
    plan.reused = [PlannedInvocation(1, "load", "load", call_id="c1", recorded_seconds=2.0)]  # type: ignore[assignment]
    view = plan_view(plan, "brisk-otter", limit=10)
    assert [(step.invocation_id, step.fate) for step in view.steps] == [
        ("load", Fate.REUSED),
        ("train", Fate.ROOT),
        ("report", Fate.DOWNSTREAM),
    ]
    assert (view.is_complete, view.seconds_saved) == (True, 2.0)
    assert not plan_view(plan, "brisk-otter", limit=1).is_complete


def test_every_reason_has_words() -> None:
    assert all(reason_text(Reason(kind, "checkpoint.x")) for kind in RootReason)
    assert reason_text(Reason(RootReason.CHECKPOINT_OVERRIDE, "checkpoint.research")) == "takes the overridden research"


def test_progress_says_what_runs_what_is_done_and_when_an_answer_is_needed() -> None:
    def step(state: Any) -> execution_pb2.Invocation:
        return execution_pb2.Invocation(number=1, invocation_id="train", state=state)

    def waiting(state: Any) -> execution_pb2.Execution:
        return execution_pb2.Execution(id="e1", name="brisk-otter", state=state)

    view = execution_view(_execution(), lambda payload: None)
    progress = Progress(view)
    assert progress.take(step_views([step(execution_pb2.INVOCATION_STATE_RUNNING)])[0]) == ""
    assert "train" in progress.line()
    assert progress.take(step_views([step(execution_pb2.INVOCATION_STATE_COMPLETED)])[0]) == "train completed"
    assert "1 step done" in progress.line()
    for _ in range(2):
        progress.take(execution_view(waiting(execution_pb2.EXECUTION_STATE_WAITING), lambda payload: None))
        assert progress.has_begun_to_wait()
        assert not progress.has_begun_to_wait()
        progress.take(execution_view(waiting(execution_pb2.EXECUTION_STATE_RUNNING), lambda payload: None))


def test_how_far_a_step_has_come_is_said_once_and_shown() -> None:
    def running(done: float, total: float | None = None) -> StepView:
        how_far = execution_pb2.Progress(done=done, total=total, message="rows")
        state = execution_pb2.INVOCATION_STATE_RUNNING
        return step_views([execution_pb2.Invocation(invocation_id="train", state=state, progress=how_far)])[0]

    progress = Progress(execution_view(_execution(), lambda payload: None))
    assert progress.take(running(3, 10)) == "train running: 3/10 rows"
    assert progress.take(running(3, 10)) == ""
    assert "train 3/10 rows" in progress.line()
    assert progress.take(running(0.5)) == "train running: 0.5 rows"
    shown = Console(width=100, record=True, file=io.StringIO())
    shown.print(steps_table([running(3, 10)]))
    assert "3/10 rows" in shown.export_text()
    said = step_document(running(3, 10))["progress"]
    assert said == {"done": 3.0, "total": 10.0, "message": "rows", "at": None}


def test_a_deadline_is_shown_until_the_end() -> None:
    message = _execution()
    message.state = execution_pb2.EXECUTION_STATE_RUNNING
    message.deadline.FromSeconds(2_000_000_000)
    view = execution_view(message, lambda payload: None)
    assert execution_document(view)["deadline"] == "2033-05-18T03:33:20+00:00"
    shown = Console(width=100, record=True, file=io.StringIO())
    shown.print(execution_details(view, ()))
    shown.print(execution_details(replace(view, state=ExecutionState.COMPLETED), ()))
    assert shown.export_text().count("deadline") == 1


def test_a_lane_is_shown_where_it_is_not_the_usual_one() -> None:
    shown = Console(width=100, record=True, file=io.StringIO())
    for lane, priority in ((execution_pb2.LANE_LIVE, 0), (execution_pb2.LANE_LIVE, 3), (execution_pb2.LANE_BULK, 0)):
        view = execution_view(_execution(lane=lane, priority=priority), lambda payload: None)
        shown.print(execution_details(view, ()))
    said = [line.split("lane", 1)[1].strip() for line in shown.export_text().splitlines() if "lane" in line]
    assert said == ["live, priority 3", "bulk, priority 0"]


def test_what_steps_print_beside_the_live_line_goes_where_it_would(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(OutputFormat.TEXT)
    report.remarks = Console(file=io.StringIO(), force_terminal=True)
    with shown(report) as line:
        assert line is not None
        print("a line of a step")
    assert capsys.readouterr().out == "a line of a step\n"
