"""Steps that are told to stop, and say how far they have come, in a runner over a real socket pair."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import dalsegno
from dalsegno import UsageError, flow, step
from dalsegno.decorators import Step
from dalsegno.payloads import from_payload
from dalsegno.v1.execution_pb2 import Progress
from dalsegno.v1.executor_service_pb2 import Cancel, ExecutorServiceWorkRequest, Report, StepProgress, Task
from tests.unit.executor_side import RunnerTalk, body_task, embedded, step_task

seen: list[str] = []
started = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    seen.clear()
    started.clear()


@step
def endless(ending: str = "finally") -> None:
    started.set()
    try:
        while True:
            time.sleep(0.001)
    finally:
        seen.append(ending)


@step
def polls() -> str:
    started.set()
    try:
        while not dalsegno.cancelled():
            time.sleep(0.001)
    except dalsegno.StepCancelled:
        seen.append("told")
    return f"looked: {dalsegno.cancelled()}"


@step
async def waits() -> None:
    started.set()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        seen.append(f"cancelled: {dalsegno.cancelled()}")
        raise


@step
def short(value: int) -> int:
    return value


@step
def counts() -> None:
    for done in range(1000):
        dalsegno.progress(done)
    dalsegno.progress(1000, 1000, "done")


@flow
def body() -> None:
    endless("in the body")


@flow
def counting_body() -> None:
    counts()


def message(talk: RunnerTalk, *kinds: str) -> ExecutorServiceWorkRequest:
    """The next message of one of these kinds."""
    while (found := talk.message()).WhichOneof("message") not in kinds:
        pass
    return found


def report(talk: RunnerTalk) -> Report:
    """The next result."""
    [found] = message(talk, "reports").reports.reports
    return found


def stop(talk: RunnerTalk, task: Task) -> None:
    assert started.wait(20)
    talk.tell(cancel=Cancel(tokens=[task.token], reason="cancelled"))


@pytest.mark.parametrize(
    ("code", "exception", "expected"),
    [
        (endless, "dalsegno.step_context:StepCancelled", ["finally"]),
        (waits, "asyncio.exceptions:CancelledError", ["cancelled: True"]),
    ],
)
def test_code_that_runs_is_stopped_and_its_thread_goes_on(
    code: Step[..., Any], exception: str, expected: list[str]
) -> None:
    with embedded(code, short) as talk:
        task = step_task(code)
        talk.give(task)
        stop(talk, task)
        assert report(talk).failed.failure.exception_type == exception
        assert seen == expected
        talk.give(step_task(short, value=5))
        assert report(talk).WhichOneof("kind") == "completed"


def test_code_may_look_for_itself_and_catch_it() -> None:
    with embedded(polls) as talk:
        task = step_task(polls)
        talk.give(task)
        stop(talk, task)
        assert from_payload(report(talk).completed.outputs.outputs[0].payload, None) == "looked: True"


def test_only_what_waits_is_taken_back_when_that_is_asked() -> None:
    with embedded(polls) as talk:
        task = step_task(polls)
        talk.give(task)
        assert started.wait(20)
        talk.tell(cancel=Cancel(tokens=[task.token], only_waiting=True))
        assert not talk.expect("returned").returned.tokens
        assert seen == []
        stop(talk, task)
        report(talk)


def test_a_step_that_a_body_runs_itself_is_stopped() -> None:
    with embedded(body, endless) as talk:
        task = body_task(body)
        talk.give(task)
        stop(talk, task)
        assert message(talk, "returned").returned.tokens == [task.token]
        assert seen == ["in the body"]


def test_stopping_never_hits_what_is_not_the_users_code() -> None:
    """Steps that end by themselves at the very moment at which they are told to stop, again and again."""
    with embedded(short) as talk:
        for number in range(1, 1001):
            task = step_task(short, number, value=1)
            talk.give(task)
            talk.tell(cancel=Cancel(tokens=[task.token]))
            reported = returned = None
            while returned is None or not (reported or returned.tokens):
                found = message(talk, "reports", "returned")
                reported = found if found.HasField("reports") else reported
                returned = found.returned if found.HasField("returned") else returned
        talk.give(step_task(short, 2000, value=1))
        assert report(talk).token.number == 2000


@pytest.mark.parametrize("task", [step_task(counts), body_task(counting_body)])
def test_progress_goes_out_now_and_then(task: Task) -> None:
    with embedded(counts, counting_body) as talk:
        talk.give(task)
        said: list[StepProgress] = []
        while not said or said[-1].progress.done < 1000:
            said += message(talk, "heartbeat").heartbeat.progress
        assert len(said) < 100
        last = said[-1]
        assert (last.token, last.number) == (task.token, 1)
        expected = Progress(done=1000, total=1000, message="done", at=last.progress.at)
        assert last.progress == expected


def test_outside_of_an_execution_progress_is_nothing() -> None:
    counts.function()
    counts()
    assert not dalsegno.cancelled()


@pytest.mark.parametrize("wrong", [{"done": "half"}, {"done": True}, {"done": 1, "total": float("nan")}])
def test_progress_is_a_number(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="give a number"):
        dalsegno.progress(**wrong)  # type: ignore[arg-type]
