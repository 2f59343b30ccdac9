"""A runner whose user code runs in the thread that asks for it, over a real socket pair; the test is the planner."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from dalsegno import flow, step, wait
from dalsegno.decorators import Decorated
from dalsegno.errors import ContextError
from dalsegno.payloads import from_payload
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_UNSPECIFIED
from dalsegno.v1.executor_service_pb2 import Cancel, Report, Task
from dalsegno_executor.runner.inline import InlineRunner
from tests.unit.executor_side import RunnerTalk, body_task, embedded, step_task

PIN = "debug-1"

threads: list[int] = []


@pytest.fixture(autouse=True)
def _no_threads() -> None:
    threads.clear()


def note() -> None:
    threads.append(threading.get_ident())


@step
def double(x: int) -> int:
    note()
    return 2 * x


@step
async def increment(x: int) -> int:
    note()
    await asyncio.sleep(0)
    return x + 1


@step
def interrupted() -> None:
    raise KeyboardInterrupt


@flow
def mixed(n: int) -> list[int]:
    note()
    beside = [double.submit(n), increment.submit(n)]
    return [double(n), *(future.result() for future in beside)]


@flow
async def on_a_loop(n: int) -> list[int]:
    note()
    beside = [double.submit(n), increment.submit(n)]
    return [await increment(n), *[await future for future in beside]]


@flow
def asking() -> Any:
    return wait(name="word", schema=str)


class Planner:
    """Plays the planner in a thread of its own, and gives back what a body submits."""

    def __init__(self, talk: RunnerTalk, runner: InlineRunner) -> None:
        self.reports: list[Report] = []
        self.pins: set[str] = set()
        self.over = threading.Event()
        self._talk = talk
        self._runner = runner
        self._body = Task()

    def play(self, task: Task) -> None:
        self._body = task
        threading.Thread(target=self._play, args=(task,)).start()

    def _play(self, task: Task) -> None:
        self._talk.give(task)
        left = 1
        while left:
            report = self._talk.report()
            self.reports.append(report)
            if report.WhichOneof("kind") == "call":
                left += self._answer(report)
            else:
                left -= 1
                if report.token.number:
                    (output,) = report.completed.outputs.outputs
                    self._talk.resolve(task.token, report.token.number, from_payload(output.payload, None))
        self.over.set()
        self._runner.poke()

    def _answer(self, report: Report) -> int:
        call = report.call
        self._talk.ack(report)
        self.pins.add(call.definition.pinned_digest)
        if not call.HasField("submitted"):
            return 0
        chosen = {one.name: one for one in (double, increment)}[call.name]
        task = step_task(chosen, call.number, x=4)
        task.definition.pinned_digest = PIN
        self._talk.give(task)
        return 1


@contextmanager
def inline(*definitions: Decorated[..., Any]) -> Iterator[tuple[RunnerTalk, InlineRunner, list[str]]]:
    """A runner in this thread, and what it says of waits."""
    ours, theirs = socket.socketpair()
    said: list[str] = []
    runner = InlineRunner(theirs, PIN, lambda: said.append("waits"))
    with ours:
        talk = RunnerTalk(ours)
        runner.start()
        assert talk.expect("credit").credit.steps == 1
        runner.announce(definitions)
        announced = talk.expect("announce").announce.definitions
        assert {(one.kind, one.digest) for one in announced} == {(DEFINITION_KIND_UNSPECIFIED, PIN)}
        yield talk, runner, said
    runner.close()


def run(task: Task, *definitions: Decorated[..., Any]) -> tuple[Planner, list[str]]:
    with inline(*definitions) as (talk, runner, said):
        planner = Planner(talk, runner)
        task.definition.pinned_digest = PIN
        planner.play(task)
        runner.run_until(planner.over.is_set)
    return planner, said


def value_of(reports: Sequence[Report]) -> Any:
    (returned,) = [one.returned for one in reports if one.WhichOneof("kind") == "returned"]
    return from_payload(returned.result, None)


def test_a_body_and_the_steps_that_it_submits_run_in_one_thread() -> None:
    planner, _ = run(body_task(mixed, n=4), mixed, double, increment)
    assert value_of(planner.reports) == [8, 8, 5]
    assert threads == [threading.get_ident()] * 4
    assert planner.pins == {PIN}


def test_an_async_body_shares_its_thread_with_steps_that_are_not() -> None:
    planner, _ = run(body_task(on_a_loop, n=4), on_a_loop, double, increment)
    assert value_of(planner.reports) == [5, 8, 5]
    # The body, the step that it awaits and the one that is a plain function; an async step needs a loop of its own.
    assert threads.count(threading.get_ident()) == 3
    assert len(threads) == 4


def test_a_body_that_waits_is_told_of() -> None:
    planner, said = run(body_task(asking), asking)
    assert planner.reports[-1].WhichOneof("kind") == "suspended"
    assert said == ["waits"]


def test_an_interrupt_is_raised_where_it_was_asked_to_run() -> None:
    with inline(interrupted) as (talk, runner, _):
        talk.give(step_task(interrupted))
        with pytest.raises(KeyboardInterrupt):
            runner.run_until(lambda: False)
        assert talk.report().failed.failure.exception_type == "builtins:KeyboardInterrupt"


def test_it_ends_with_its_stream_process() -> None:
    with inline(double) as (talk, runner, _):
        talk._socket.shutdown(socket.SHUT_RDWR)
        runner.run_until(lambda: False)
        assert runner.closed


def test_steps_that_have_not_started_go_back() -> None:
    with inline(double) as (talk, runner, _):
        tasks = [step_task(double, number, x=1) for number in (1, 2)]
        talk.give(*tasks)
        talk.tell(cancel=Cancel(tokens=[tasks[1].token], reason="not needed"))
        assert [one.number for one in talk.expect("returned").returned.tokens] == [2]
        runner.run_until(lambda: len(threads) == 1)
        assert talk.report().token.number == 1


def in_a_thread(call: Callable[[], object]) -> str:
    told: list[str] = []

    def run() -> None:
        try:
            told.append(str(call()))
        except ContextError as error:
            told.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return told[0]


@step
def starts_a_thread() -> str:
    return in_a_thread(lambda: double(1))


@flow
def starts_threads() -> list[str]:
    nested = in_a_thread(lambda: in_a_thread(lambda: double(1)))
    with ThreadPoolExecutor(1) as own:
        pooled = own.submit(double, 1).exception()
    assert isinstance(pooled, ContextError)
    called = [in_a_thread(lambda: double(1)), in_a_thread(lambda: double.submit(1))]
    return [*called, nested, pooled.reason, starts_a_thread()]


def test_durable_calls_in_threads_that_a_body_or_step_has_started_are_refused() -> None:
    with embedded(starts_threads, starts_a_thread, double) as talk:
        reports = talk.run_body(body_task(starts_threads))
    assert value_of(reports) == [*["OTHER_THREAD"] * 4, "STEP_INSIDE_STEP"]
    assert threads == []


def test_steps_in_threads_of_a_script_are_plain_functions() -> None:
    with embedded(starts_threads, double) as talk:
        talk.run_body(body_task(starts_threads))
        assert in_a_thread(lambda: double(3)) == "6"
