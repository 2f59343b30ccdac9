"""A runner and the bodies of flows, over a real socket pair; the test is the planner."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from dalsegno import as_completed, flow, step, wait
from dalsegno.errors import UsageError, UserCodeError, WaitTimeoutError
from dalsegno.payloads import from_payload
from dalsegno.v1.execution_pb2 import (
    DIVERGENCE_KIND_EXTRA_CALL,
    DIVERGENCE_KIND_GRAPH_CHANGED,
    DIVERGENCE_KIND_ROOT_NOT_REACHED,
    FAILURE_ORIGIN_BACKEND,
    FAILURE_ORIGIN_DIVERGENCE,
    FAILURE_ORIGIN_USER_CODE,
    Failure,
)
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_FENCED,
    ACK_STATUS_REJECTED,
    RECORDED_CALL_ACTION_AWAIT,
    RECORDED_CALL_ACTION_EXECUTE,
    Call,
    Cancel,
    RecordedCall,
    RecordedCalls,
    ReplayRules,
    Report,
    Resolved,
    ResolvedCall,
    Task,
)
from tests.unit.executor_side import as_recorded, body_task, embedded, outputs

ran: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@step
def add(a: int, b: int) -> int:
    ran.append((a, b))
    return a + b


@step
def append(items: list[int], item: int) -> list[int]:
    items.append(item)
    return items


@step(retries=1, retry_jitter=0)
def unsteady() -> int:
    raise LookupError("not yet")


@step
def fails(word: str) -> None:
    raise LookupError(word)


class Peculiar(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


@step
def fails_peculiarly() -> None:
    raise Peculiar(4)


@step(timeout=5)
def limited() -> int:
    return 1


@flow
def chain(length: int) -> int:
    value = 0
    for number in range(length):
        value = add(value, number)
    return value


def value_of(report: Report) -> Any:
    """What a body has returned."""
    assert report.WhichOneof("kind") == "returned", report
    return from_payload(report.returned.result, None)


def calls_of(reports: Sequence[Report]) -> list[Call]:
    return [report.call for report in reports if report.WhichOneof("kind") == "call"]


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


def recording_of(body: Any, *code: Any, **values: Any) -> list[Call]:
    with embedded(body, *code) as talk:
        return calls_of(talk.run_body(body_task(body, **values)))


def test_a_recovered_body_runs_only_what_is_not_recorded() -> None:
    calls = recording_of(chain, add, length=4)
    ran.clear()
    with embedded(chain, add) as talk:
        reports = talk.run_body(body_task(chain, map(as_recorded, calls[:2]), length=4))
    assert value_of(reports[-1]) == 6
    assert [one.number for one in calls_of(reports)] == [3, 4]
    assert ran == [(1, 2), (3, 3)]


def test_recorded_calls_may_come_in_pages() -> None:
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


def test_a_replay_reuses_and_then_executes_under_the_recorded_numbers() -> None:
    calls = recording_of(chain, add, length=3)
    ran.clear()
    recorded, rules = replayed(calls, 3)
    recorded[1].outputs.CopyFrom(outputs(100))
    with embedded(chain, add) as talk:
        reports = talk.run_body(body_task(chain, recorded, replay=rules, length=3))
    assert value_of(reports[-1]) == 102
    assert [one.number for one in calls_of(reports)] == [3]


def test_an_override_of_a_steps_input_reaches_the_step_and_its_record() -> None:
    calls = recording_of(chain, add, length=2)
    recorded, rules = replayed(calls, 2)
    recorded[1].overridden_inputs.bindings["b"].value.CopyFrom(outputs(50).outputs[0].payload)
    with embedded(chain, add) as talk:
        call, last = talk.run_body(body_task(chain, recorded, replay=rules, length=2))
    assert value_of(last) == 50
    assert from_payload(call.call.inputs.bindings["b"].value, None) == 50


def failure_of(report: Report) -> Failure:
    assert report.WhichOneof("kind") == "failed", report
    return report.failed.failure


@pytest.mark.semantics("5", "It ends the execution failed with failure.origin = divergence")
def test_a_body_that_departs_from_its_recording_ends_before_it_does_anything() -> None:
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


@pytest.mark.semantics("5", "Removed or new required arguments of a flow are graph_changed too")
def test_a_replay_of_a_flow_with_other_arguments_is_a_changed_graph() -> None:
    with embedded(chain, add) as talk:
        failure = failure_of(talk.run_body(body_task(chain, replay=ReplayRules(roots=[1]), size=2))[-1])
    assert failure.divergence.kind == DIVERGENCE_KIND_GRAPH_CHANGED


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
def submits() -> list[int]:
    futures = add.map([1, 2], [3, 4])
    first = limited()
    return [first, unsteady(), *(future.result() for future in as_completed(futures))]


@pytest.mark.semantics("5", ".submit() returns a future, .map() a list of them")
def test_what_is_submitted_limited_or_tried_again_runs_elsewhere() -> None:
    answers: dict[str, Callable[[Call], object]] = {
        "add": lambda _: 4,
        "add_2": lambda _: 6,
        "limited": lambda _: 1,
        "unsteady": lambda call: len(call.failed_attempts),
    }
    with embedded(submits, add, limited, unsteady) as talk:
        reports = talk.run_body(body_task(submits), answers)
    assert value_of(reports[-1]) == [1, 1, 4, 6]
    assert ran == []
    retried = calls_of(reports)[3]
    assert retried.submitted.delay.seconds == 1
    assert retried.failed_attempts[0].failure.message == "not yet"


@flow
def in_order_of_their_ends() -> list[int]:
    futures = add.map([1, 2, 3], [0, 0, 0])
    order = as_completed(futures)
    first = next(order).number
    add(first, 100)
    return [first, *(future.number for future in order)]


@pytest.mark.semantics("5", "dalsegno.as_completed records the order in which it yields, so that it repeats.")
def test_the_order_of_completed_futures_is_reported_and_repeats_in_recovery() -> None:
    with embedded(in_order_of_their_ends, add) as talk:
        task = body_task(in_order_of_their_ends)
        talk.give(task)
        submitted = [talk.report() for _ in range(3)]
        talk.resolve(task.token, 2, 2)
        begun, direct = talk.begun(), talk.report()
        for number in (3, 1):
            talk.resolve(task.token, number, number)
        talk.ack(direct)
        last = talk.report()
        assert value_of(last) == [2, 3, 1]
        said = [[(one.place, one.number) for one in each.call.yields] for each in (begun, direct)]
        assert said == [[(1, 2)], [(1, 2)]], "whatever ends the runner in that step, the order is known"
        assert [(one.place, one.number) for one in last.returned.yields] == [(2, 3), (3, 1)]
        recorded = [as_recorded(one.call, outputs=outputs(one.call.number)) for one in submitted]
        for call, place in zip(recorded, (3, 1, 2), strict=True):
            call.yielded = place
        [again] = talk.run_body(body_task(in_order_of_their_ends, [*recorded, as_recorded(direct.call)], epoch=2))
        assert value_of(again) == [2, 3, 1]
        assert list(again.returned.yields) == []


@flow
def completes_what_is_no_future() -> str:
    try:
        list(as_completed([add]))  # type: ignore[arg-type]
    except UsageError as error:
        return str(error)
    return "no error"


def test_as_completed_takes_futures_alone() -> None:
    with embedded(completes_what_is_no_future, add) as talk:
        assert "it takes what .submit() and .map() return" in value_of(
            talk.run_body(body_task(completes_what_is_no_future))[-1]
        )


def test_recovery_waits_for_what_was_submitted_before() -> None:
    with embedded(submits, add, limited, unsteady) as talk:
        answers: dict[str, Callable[[Call], object]] = dict.fromkeys(
            ("add", "add_2", "limited", "unsteady"), lambda _: 1
        )
        calls = calls_of(talk.run_body(body_task(submits), answers))
        recorded = [as_recorded(call, action=RECORDED_CALL_ACTION_AWAIT) for call in calls]
        task = body_task(submits, recorded, epoch=2)
        talk.give(task)
        for call in calls:
            talk.resolve(task.token, call.number, call.number * 10)
        assert value_of(talk.report()) == [30, 40, 10, 20]


@flow
def forgets_a_future() -> int:
    fails.submit("unseen")
    return 1


def test_a_failure_that_the_body_did_not_look_at_is_not_a_success() -> None:
    with embedded(forgets_a_future, fails) as talk:
        task = body_task(forgets_a_future)
        talk.give(task)
        call = talk.report()
        failure = Failure(origin=FAILURE_ORIGIN_USER_CODE, message="unseen", exception_type="builtins:LookupError")
        talk.tell(resolved=Resolved(calls=[ResolvedCall(body=task.token, number=call.call.number, failure=failure)]))
        assert failure_of(talk.report()).message == "unseen"


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
def test_a_body_whose_task_is_lost_goes_back(how: str) -> None:
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


gates: dict[str, asyncio.Event] = {}


@step
async def passes(name: str, opens: str) -> str:
    gate = gates.setdefault(name, asyncio.Event())
    gates.setdefault(opens, asyncio.Event()).set()
    await gate.wait()
    return name


@step
async def names(name: str) -> str:
    return name


@flow
async def side_by_side() -> list[str]:
    async def pair(first: str, second: str, opens: str) -> list[str]:
        # What is asked first ends last.
        return [await passes(first, opens), await names(second)]

    a, b = await asyncio.gather(pair("a", "a2", "c"), pair("b", "b2", "a"))
    return [*a, *b, await names.submit("d"), add(1, 1)]  # type: ignore[list-item]


@pytest.mark.semantics(
    "5",
    "calls are numbered on the body's loop as they are created; asyncio.gather works",
    "A call is numbered when it is made (.submit())",
)
def test_an_async_body_numbers_its_calls_the_same_way_in_every_run() -> None:
    gates.clear()
    gates["b"] = asyncio.Event()
    gates["b"].set()
    with embedded(side_by_side, passes, names, add) as talk:
        reports = talk.run_body(body_task(side_by_side), {"names_3": lambda _: "d"})
        assert value_of(reports[-1]) == ["a", "a2", "b", "b2", "d", 2]
        calls = sorted(calls_of(reports), key=lambda call: call.position)
        assert [call.invocation_id for call in calls] == [
            "passes", "passes_2", "names", "names_2", "names_3", "add",
        ]  # fmt: skip
        recorded = [as_recorded(call) for call in calls]
        recorded[4].outputs.CopyFrom(outputs("d"))
        [again] = talk.run_body(body_task(side_by_side, recorded, epoch=2))
        assert value_of(again) == value_of(reports[-1])


@flow
async def waits_in_a_task() -> str:
    async def ask() -> str:
        return str(wait(name="go"))

    asking = asyncio.create_task(ask())
    await asyncio.Event().wait()
    return await asking


def test_a_wait_in_a_task_ends_an_async_body_that_waits_for_something_else() -> None:
    with embedded(waits_in_a_task) as talk:
        assert list(talk.run_body(body_task(waits_in_a_task))[-1].suspended.waits) == [1]


@flow
async def never_ends() -> str:
    return await passes("nobody opens this", "something else")


def test_a_cancelled_async_body_ends() -> None:
    gates.clear()
    with embedded(never_ends, passes) as talk:
        task = body_task(never_ends)
        talk.give(task)
        talk.begun()
        talk.tell(cancel=Cancel(tokens=[task.token]))
        assert list(talk.expect("returned").returned.tokens) == [task.token]
