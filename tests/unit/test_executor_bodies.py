"""A runner and the bodies of flows, over a real socket pair; the test is the planner."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import date

import pytest

from dalsegno import flow, step, wait
from dalsegno.errors import UserCodeError, WaitTimeoutError
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_BACKEND
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_FENCED, ACK_STATUS_REJECTED, Cancel
from tests.unit.body_code import add, calls_of, chain, fails, failure_of, value_of
from tests.unit.executor_side import as_recorded, body_task, embedded, outputs


@step
def append(items: list[int], item: int) -> list[int]:
    items.append(item)
    return items


class Peculiar(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


@step
def fails_peculiarly() -> None:
    raise Peculiar(4)


def test_a_chain_runs_in_the_body_with_one_report_a_step() -> None:
    with embedded(chain, add) as talk:
        *calls, last = talk.run_body(body_task(chain, length=3))
    assert value_of(last) == 3
    assert [(one.number, one.position, one.invocation_id) for one in calls_of(calls)] == [
        (1, 1, "add"),
        (2, 2, "add_2"),
        (3, 3, "add_3"),
    ]
    second = calls[1].call
    assert second.inputs.bindings["a"].output.number == 1
    assert second.completed.code_digest == add.digest


def test_the_stream_process_hears_of_a_call_before_it_runs() -> None:
    with embedded(chain, add) as talk:
        talk.give(body_task(chain, length=1))
        begun = talk.begun()
        assert (begun.report_id, begun.call.WhichOneof("action")) == (0, "started")
        talk.ack(talk.report())
        assert value_of(talk.report()) == 0


@flow
def keeps_its_objects() -> list[list[int]]:
    mine: list[int] = []
    first = append(mine, 1)
    second = append(first, 2)
    return [mine, first, second]


@pytest.mark.semantics("5", "a body always receives the decoded copy of what was stored")
def test_steps_get_copies_and_the_body_gets_what_was_stored() -> None:
    with embedded(keeps_its_objects, append) as talk:
        assert value_of(talk.run_body(body_task(keeps_its_objects))[-1]) == [[], [1], [1, 2]]


@dataclass
class Recipe:
    title: str
    day: date


@flow
def cooks(recipe: Recipe, days: list[date], note: str) -> str:
    return f"{recipe.title} {recipe.day.year} {days[0].month} {note}"


def test_inputs_that_are_written_as_json_become_what_the_flow_asks_for() -> None:
    task = body_task(cooks, recipe={"title": "soup", "day": "2024-05-01"}, days=["2023-07-01"], note="x")
    with embedded(cooks) as talk:
        assert value_of(talk.run_body(task)[-1]) == "soup 2024 7 x"


@flow
def catches() -> list[str]:
    texts = []
    for call in (lambda: fails("a"), fails_peculiarly):
        try:
            call()  # type: ignore[no-untyped-call]
        except (LookupError, UserCodeError) as error:
            texts.append(f"{type(error).__name__}: {error}")
    return texts


@pytest.mark.semantics(
    "5",
    "the original class where it can be imported and rebuilt, else UserCodeError",
    "the step is not run again on recovery",
)
def test_a_caught_failure_is_the_same_in_the_first_run_and_in_recovery() -> None:
    expected = ["LookupError: a", "UserCodeError: code 4"]
    with embedded(catches, fails, fails_peculiarly) as talk:
        reports = talk.run_body(body_task(catches))
        assert value_of(reports[-1]) == expected
        recorded = map(as_recorded, calls_of(reports))
        [again] = talk.run_body(body_task(catches, recorded, epoch=2))
        assert value_of(again) == expected


@flow
def lets_it_fail() -> None:
    fails("b")


def test_a_body_fails_with_the_failure_of_its_step() -> None:
    with embedded(lets_it_fail, fails) as talk:
        failure = failure_of(talk.run_body(body_task(lets_it_fail))[-1])
    assert (failure.invocation_id, failure.attempt, failure.message) == ("fails", 1, "b")
    assert failure.exception_type == "builtins:LookupError"
    assert "raise LookupError(word)" in failure.traceback


@flow
def asks() -> str:
    try:
        answer = wait(name="approve", schema=int, question="How many?", timeout=9)
    except WaitTimeoutError:
        return "too late"
    except BaseException:  # noqa: BLE001 - what a careless author might write
        return "swallowed"
    return f"{answer + 1}"


def test_a_wait_ends_the_body_however_careless_it_is() -> None:
    with embedded(asks) as talk:
        call, last = talk.run_body(body_task(asks))
        assert (call.call.wait.question, call.call.wait.schema) == ("How many?", '{"type": "integer"}')
        assert call.call.wait.timeout.seconds == 9
        assert list(last.suspended.waits) == [1]
        answered = as_recorded(call.call, outputs=outputs(4))
        assert value_of(talk.run_body(body_task(asks, [answered], epoch=2))[-1]) == "5"
        late = as_recorded(call.call, timed_out=True)
        assert value_of(talk.run_body(body_task(asks, [late], epoch=3))[-1]) == "too late"


@flow
def passes_a_gate() -> str:
    return f"{wait(name='gate')}"


@pytest.mark.parametrize("answer", [True, False])
def test_a_gate_goes_on_or_aborts(answer: bool) -> None:
    with embedded(passes_a_gate) as talk:
        call, _ = talk.run_body(body_task(passes_a_gate))
        assert call.call.wait.schema == ""
        last = talk.run_body(body_task(passes_a_gate, [as_recorded(call.call, outputs=outputs(answer))], epoch=2))[-1]
        if answer:
            assert value_of(last) == "True"
        else:
            assert "abort" in failure_of(last).message


@pytest.mark.parametrize("how", ["fenced", "cancelled"])
def test_a_body_whose_task_is_lost_goes_back(ran: list[object], how: str) -> None:
    with embedded(chain, add) as talk:
        task = body_task(chain, length=3)
        talk.give(task)
        report = talk.report()
        if how == "fenced":
            talk.ack(report, ACK_STATUS_FENCED)
        else:
            talk.tell(cancel=Cancel(tokens=[task.token]))
        assert list(talk.expect("returned").returned.tokens) == [task.token]
    assert len(ran) == 1


def test_a_call_that_the_planner_cannot_record_fails_the_body() -> None:
    with embedded(chain, add) as talk:
        talk.give(body_task(chain, length=3))
        talk.ack(talk.report(), ACK_STATUS_REJECTED)
        failure = failure_of(talk.report())
    assert failure.origin == FAILURE_ORIGIN_BACKEND
    assert "told so" in failure.message


@flow
def exits() -> None:
    raise SystemExit(4)


@flow
def calls_from_a_thread() -> str:
    found: list[str] = []

    def call() -> None:
        try:
            add(1, 2)
        except Exception as error:  # noqa: BLE001 - what it is, is the question
            found.append(type(error).__name__)

    from contextvars import copy_context

    thread = threading.Thread(target=copy_context().run, args=(call,))
    thread.start()
    thread.join()
    return found[0]


def test_system_exit_ends_the_body_and_not_the_runner() -> None:
    with embedded(exits, chain, add) as talk:
        assert failure_of(talk.run_body(body_task(exits))[-1]).exception_type == "builtins:SystemExit"
        assert value_of(talk.run_body(body_task(chain, length=1, epoch=2))[-1]) == 0


@pytest.mark.semantics("5", "durable calls from other threads are ContextError")
def test_a_durable_call_from_another_thread_is_refused() -> None:
    with embedded(calls_from_a_thread, add) as talk:
        assert value_of(talk.run_body(body_task(calls_from_a_thread))[-1]) == "ContextError"
