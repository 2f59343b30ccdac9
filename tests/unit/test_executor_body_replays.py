"""Bodies that are recovered or replayed, over a real socket pair; the test is the planner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dalsegno.payloads import from_payload
from dalsegno.v1.execution_pb2 import (
    DIVERGENCE_KIND_EXTRA_CALL,
    DIVERGENCE_KIND_GRAPH_CHANGED,
    DIVERGENCE_KIND_ROOT_NOT_REACHED,
    FAILURE_ORIGIN_DIVERGENCE,
)
from dalsegno.v1.executor_service_pb2 import (
    RECORDED_CALL_ACTION_EXECUTE,
    Call,
    Cancel,
    Drain,
    RecordedCall,
    RecordedCalls,
    ReplayRules,
    Task,
)
from tests.unit.body_code import add, calls_of, chain, failure_of, recording_of, value_of
from tests.unit.executor_side import as_recorded, body_task, embedded, outputs


def test_a_recovered_body_runs_only_what_is_not_recorded(ran: list[object]) -> None:
    calls = recording_of(chain, add, length=4)
    ran.clear()
    with embedded(chain, add) as talk:
        reports = talk.run_body(body_task(chain, map(as_recorded, calls[:2]), length=4))
    assert value_of(reports[-1]) == 6
    assert [one.number for one in calls_of(reports)] == [3, 4]
    assert ran == [(1, 2), (3, 3)]


def test_recorded_calls_may_come_in_pages(ran: list[object]) -> None:
    calls = recording_of(chain, add, length=3)
    task = body_task(chain, map(as_recorded, calls[:1]), length=3)
    task.body.recorded.more = True
    task.body.next_number = 4
    rest = Task(token=task.token, recorded=RecordedCalls(calls=map(as_recorded, calls[1:])))
    ran.clear()
    with embedded(chain, add) as talk:
        talk.give(task)
        talk.give(rest)
        assert value_of(talk.report()) == 3
    assert ran == []


@pytest.mark.parametrize("how", ["cancelled", "drained"])
def test_a_body_that_has_not_come_whole_goes_back_at_once(ran: list[object], how: str) -> None:
    """It has no thread yet that would end at its next call."""
    task = body_task(chain, length=3)
    task.body.recorded.more = True
    with embedded(chain, add) as talk:
        talk.give(task)
        if how == "cancelled":
            talk.tell(cancel=Cancel(tokens=[task.token]))
        else:
            talk.tell(drain=Drain())
        assert list(talk.expect("returned").returned.tokens) == [task.token]
        talk.give(Task(token=task.token, recorded=RecordedCalls()))
        talk.give(body_task(chain, epoch=2, length=1))
        assert talk.report().token.epoch == 2
    assert len(ran) == 1


def replayed(calls: Sequence[Call], *roots: int, **fields: Any) -> tuple[list[RecordedCall], ReplayRules]:
    """What a replay from some roots sends, where everything from the first root on is affected."""
    first = min(roots)
    recorded = [
        as_recorded(call, **({"action": RECORDED_CALL_ACTION_EXECUTE} if call.number >= first else {}))
        for call in calls
    ]
    for call in recorded:
        call.own = call.number >= first
    return recorded, ReplayRules(roots=roots, **fields)


def test_a_replay_reuses_and_then_executes_under_the_recorded_numbers(ran: list[object]) -> None:
    calls = recording_of(chain, add, length=3)
    ran.clear()
    recorded, rules = replayed(calls, 3)
    recorded[1].outputs.CopyFrom(outputs(100))
    with embedded(chain, add) as talk:
        reports = talk.run_body(body_task(chain, recorded, replay=rules, length=3))
    assert value_of(reports[-1]) == 102
    assert [one.number for one in calls_of(reports)] == [3]
    assert ran == [(100, 2)]


def test_an_override_of_a_steps_input_reaches_the_step_and_its_record() -> None:
    calls = recording_of(chain, add, length=2)
    recorded, rules = replayed(calls, 2)
    recorded[1].overridden_inputs.bindings["b"].value.CopyFrom(outputs(50).outputs[0].payload)
    with embedded(chain, add) as talk:
        call, last = talk.run_body(body_task(chain, recorded, replay=rules, length=2))
    assert value_of(last) == 50
    assert from_payload(call.call.inputs.bindings["b"].value, None) == 50


@pytest.mark.semantics("5", "It ends the execution failed with failure.origin = divergence")
def test_a_body_that_departs_from_its_recording_ends_before_it_does_anything(ran: list[object]) -> None:
    calls = recording_of(chain, add, length=2)
    recorded, rules = replayed(calls, 2)
    recorded[0].name = recorded[0].invocation_id = "subtract"
    recorded[0].inputs.bindings.clear()
    ran.clear()
    with embedded(chain, add) as talk:
        failure = failure_of(talk.run_body(body_task(chain, recorded, replay=rules, length=2))[-1])
    assert (failure.origin, failure.divergence.kind) == (FAILURE_ORIGIN_DIVERGENCE, DIVERGENCE_KIND_EXTRA_CALL)
    assert (failure.divergence.expected.name, failure.divergence.actual.name) == ("subtract", "add")
    assert "call 1 is step 'add'" in failure.message
    assert ran == []


def test_a_body_that_reaches_no_root_has_diverged() -> None:
    calls = recording_of(chain, add, length=2)
    recorded, rules = replayed(calls, 2)
    with embedded(chain, add) as talk:
        last = talk.run_body(body_task(chain, recorded, replay=rules, length=1))[-1]
    assert failure_of(last).divergence.kind == DIVERGENCE_KIND_ROOT_NOT_REACHED
    assert list(last.failed.not_reached) == [2]


@pytest.mark.semantics("5", "mark the invocation stale_inputs")
def test_stale_inputs_are_reported_and_the_recorded_output_is_used() -> None:
    calls = recording_of(chain, add, length=2)
    recorded, rules = replayed(calls, 3, overridden_inputs=["length"])
    recorded[0].inputs.bindings["b"].digest = b"another"
    rules.roots.remove(3)
    with embedded(chain, add) as talk:
        call, last = talk.run_body(body_task(chain, recorded, replay=rules, length=2))
    assert call.call.reused.stale_inputs
    assert value_of(last) == 1


@pytest.mark.semantics("5", "Removed or new required arguments of a flow are graph_changed too")
def test_a_replay_of_a_flow_with_other_arguments_is_a_changed_graph() -> None:
    with embedded(chain, add) as talk:
        failure = failure_of(talk.run_body(body_task(chain, replay=ReplayRules(roots=[1]), size=2))[-1])
    assert failure.divergence.kind == DIVERGENCE_KIND_GRAPH_CHANGED
