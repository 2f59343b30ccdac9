"""What flow bodies submit, over a real socket pair; the test is the planner and runs it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dalsegno import as_completed, flow, step
from dalsegno.errors import UsageError
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_USER_CODE, Failure
from dalsegno.v1.executor_service_pb2 import RECORDED_CALL_ACTION_AWAIT, Call, Resolved, ResolvedCall
from tests.unit.body_code import add, calls_of, fails, failure_of, value_of
from tests.unit.executor_side import as_recorded, body_task, embedded, outputs


@step(retries=1, retry_jitter=0)
def unsteady() -> int:
    raise LookupError("not yet")


@step(timeout=5)
def limited() -> int:
    return 1


@flow
def submits() -> list[int]:
    futures = add.map([1, 2], [3, 4])
    first = limited()
    return [first, unsteady(), *(future.result() for future in as_completed(futures))]


@pytest.mark.semantics("5", ".submit() returns a future, .map() a list of them")
def test_what_is_submitted_limited_or_tried_again_runs_elsewhere(ran: list[object]) -> None:
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
