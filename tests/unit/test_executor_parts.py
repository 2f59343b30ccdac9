"""The small pure parts of an executor: frames, pace, attempts, and who is to blame."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.decorators import step as step_decorator
from dalsegno.definitions import settings_of, step_options
from dalsegno.steps import MAX_RETRY_DELAY
from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.execution_pb2 import Failure
from dalsegno.v1.executor_service_pb2 import BodyTask, Call, Report, StepTask, Task, TaskToken
from dalsegno_executor.attempts import (
    duration,
    failed_call,
    failed_step,
    may_retry,
    names_of,
    retry_delay,
    timestamp,
)
from dalsegno_executor.framing import FrameError, FrameReader, frame
from dalsegno_executor.given import BegunCall, Given
from dalsegno_executor.losses import SuspectBody, SuspectCall, SuspectStep, judge
from dalsegno_executor.pacing import LARGEST_WINDOW, Pace
from dalsegno_executor.runner.coroutines import ThreadLoop
from dalsegno_executor.runners import describe_exit
from dalsegno_executor.tokens import key_of, token_of


@given(st.lists(st.binary(max_size=40)), st.integers(1, 7))
def test_frames_survive_any_cutting(contents: list[bytes], piece: int) -> None:
    tokens = [TaskToken(execution_id=content, number=number) for number, content in enumerate(contents)]
    wire = b"".join(map(frame, tokens))
    reader = FrameReader()
    found = [message for start in range(0, len(wire), piece) for message in reader.feed(wire[start : start + piece])]
    assert [TaskToken.FromString(message) for message in found] == tokens
    assert reader.pending == 0


def test_a_senseless_length_is_refused() -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(b"\xff\xff\xff\xff")


def test_keys_and_tokens_are_one() -> None:
    token = TaskToken(execution_id=b"x" * 16, number=3, epoch=2)
    assert token_of(key_of(token)) == token


def test_the_window_opens_for_short_tasks_and_closes_when_they_become_long() -> None:
    pace = Pace()
    assert (pace.window, pace.too_many(1)) == (0, False)
    assert not pace.too_many(100), "nothing is known of tasks"
    pace.observe([0.00001] * 300)
    assert (pace.window, pace.too_many(1)) == (LARGEST_WINDOW, False)
    pace.observe([0.2] * 3)
    assert (pace.window, pace.too_many(1)) == (0, True)


def test_more_than_a_few_windows_full_would_wait_for_long() -> None:
    pace = Pace()
    pace.observe([0.01] * 10)
    assert [waiting for waiting in (1, 5, 20, 21, 500) if pace.too_many(waiting)] == [21, 500]
    pace.observe([0.2] * 10)
    assert pace.too_many(1)


def test_one_task_that_the_machine_has_kept_waiting_does_not_close_the_window() -> None:
    pace = Pace()
    pace.observe([0.2, 0.00001])
    for _ in range(4):
        pace.observe([0.00001])
        assert pace.window == LARGEST_WINDOW


def test_where_every_tenth_task_is_long_what_they_take_on_average_counts() -> None:
    pace = Pace()
    pace.observe(([0.00001] * 9 + [0.09]) * 20)
    assert pace.window == 5


def test_the_window_is_closed_where_a_task_is_stuck_until_tasks_end() -> None:
    pace = Pace()
    pace.observe([0.00001] * 300)
    pace.stuck()
    assert (pace.window, pace.too_many(1)) == (0, True)
    pace.observe([0.3])
    assert pace.window == LARGEST_WINDOW
    pace.stuck()
    pace.observe([0.3, 0.3])
    assert (pace.window, pace.too_many(1)) == (0, True)


def test_tasks_that_are_stuck_again_and_again_are_not_forgotten() -> None:
    pace = Pace()
    for _ in range(7):
        pace.observe([0.00001] * 9)
        pace.stuck()
        pace.observe([0.15])
    assert pace.window == 3


@pytest.mark.parametrize(("seconds", "window"), [(0.001, 50), (0.01, 5), (0.05, 1), (0.06, 0)])
def test_the_window_is_a_fixed_time_of_work(seconds: float, window: int) -> None:
    pace = Pace()
    pace.observe([seconds])
    assert pace.window == window


def options(retries: int = 0, delay: float | None = None, most: float | None = None) -> StepOptions:
    return StepOptions(
        retries=retries,
        retry_delay=None if delay is None else duration(delay),
        max_retry_delay=None if most is None else duration(most),
    )


@pytest.mark.parametrize(
    ("attempt", "delay", "most", "expected"),
    [(1, None, None, 1.0), (3, None, None, 4.0), (2, 0.5, None, 1.0), (90, None, None, MAX_RETRY_DELAY), (4, 1, 5, 5)],
)
def test_delays_double_up_to_a_limit(attempt: int, delay: float | None, most: float | None, expected: float) -> None:
    assert retry_delay(options(delay=delay, most=most), attempt, 0.5) == expected


@pytest.mark.parametrize(
    ("jitter", "chance", "expected"),
    [(None, 0.0, 3.0), (None, 1.0, 5.0), (0.0, 0.0, 4.0), (1.0, 0.0, 0.0), (1.0, 1.0, 6.0)],
)
def test_delays_are_longer_or_shorter_by_chance(jitter: float | None, chance: float, expected: float) -> None:
    of = options(most=6.0)
    if jitter is not None:
        of.retry_jitter = jitter
    assert retry_delay(of, 3, chance) == expected


class Late(TimeoutError):
    """A subclass counts."""


@pytest.mark.parametrize(
    ("raised", "on", "not_on", "again"),
    [
        (ValueError, (), (), True),
        (ValueError, (TimeoutError,), (), False),
        (Late, (TimeoutError, KeyError), (), True),
        (Late, (TimeoutError,), (Late,), False),
        (ValueError, (), (ValueError,), False),
        (KeyError, (Exception,), (ValueError,), True),
        (SystemExit, (Exception,), (), False),
        (None, (TimeoutError,), (Exception,), True),
    ],
)
def test_what_an_attempt_raised_says_whether_it_is_tried_again(
    raised: type[BaseException] | None,
    on: tuple[type[BaseException], ...],
    not_on: tuple[type[BaseException], ...],
    again: bool,
) -> None:
    function = step_decorator(retries=1, retry_on=on, no_retry_on=not_on)(test_keys_and_tokens_are_one)
    of = step_options(function.options)
    assert settings_of(of) == function.options
    assert may_retry(of, () if raised is None else names_of(raised)) is again
    names = () if raised is None else names_of(raised)
    task = Task(step=StepTask(invocation_id="a", attempt=1, options=of, attempts_before=3))
    report = failed_step(task, Failure(), timestamp(1), timestamp(2), "", names)
    assert report.WhichOneof("kind") == ("attempt_failed" if again else "failed")
    call = failed_call(Call(options=of), Failure(), timestamp(1), timestamp(2), "", names, attempts_before=3)
    assert call.WhichOneof("action") == ("submitted" if again else "failed")
    failures = report.attempt_failed.attempt.failure, report.failed.failure
    assert 4 in {failure.attempt for failure in failures}


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, False)])
def test_a_step_is_tried_again_while_it_has_retries(attempt: int, again: bool) -> None:
    task = Task(step=StepTask(invocation_id="a", attempt=attempt, options=options(retries=2)))
    report = failed_step(task, Failure(message="no"), timestamp(1), timestamp(2), "digest")
    assert report.WhichOneof("kind") == ("attempt_failed" if again else "failed")
    failure = report.attempt_failed.attempt.failure if again else report.failed.failure
    assert (failure.invocation_id, failure.attempt) == ("a", attempt)


@pytest.mark.parametrize(("retries", "action"), [(0, "failed"), (1, "submitted")])
def test_a_call_that_a_body_ran_itself_is_tried_again_anywhere(retries: int, action: str) -> None:
    call = Call(invocation_id="a", options=options(retries))
    failed = failed_call(call, Failure(message="no"), timestamp(1), timestamp(2), "digest")
    assert failed.WhichOneof("action") == action
    assert len(failed.failed_attempts) == retries


def step(number: int) -> Given:
    token = TaskToken(execution_id=b"e", number=number)
    return Given(Task(token=token, step=StepTask()), key_of(token), 0.0)


def body(execution: bytes, *calls: int) -> Given:
    token = TaskToken(execution_id=execution)
    found = Given(Task(token=token, body=BodyTask()), key_of(token), 0.0)
    for number in calls:
        found.calls[number] = BegunCall(Report(token=token, call=Call(number=number)), 0.0)
    return found


def test_the_only_step_is_to_blame() -> None:
    alone, idle_body = step(1), body(b"x")
    verdict = judge([alone], [idle_body], killed_by_us=False, ran_alone=False)
    assert verdict.blamed == SuspectStep(alone)
    assert (list(verdict.again), list(verdict.back)) == ([], [idle_body])


def test_the_only_call_is_to_blame_and_its_body_is_recovered() -> None:
    caller = body(b"x", 4)
    verdict = judge([], [caller, body(b"y")], killed_by_us=False, ran_alone=False)
    assert isinstance(verdict.blamed, SuspectCall)
    assert verdict.blamed.report.call.number == 4
    assert caller in verdict.back


@pytest.mark.parametrize("ran_alone", [False, True])
def test_a_body_in_its_own_code_is_to_blame_once_it_has_run_alone(ran_alone: bool) -> None:
    only = body(b"x")
    verdict = judge([], [only], killed_by_us=False, ran_alone=ran_alone)
    assert verdict.blamed == (SuspectBody(only) if ran_alone else None)
    assert list(verdict.back) == ([] if ran_alone else [only])
    assert list(verdict.alone) == ([] if ran_alone else [only])


def test_of_several_none_is_blamed_and_each_runs_alone() -> None:
    steps, caller = [step(1), step(2)], body(b"x", 4)
    verdict = judge(steps, [caller], killed_by_us=False, ran_alone=False)
    assert verdict.blamed is None
    assert list(verdict.again) == steps
    assert list(verdict.back) == [caller]
    assert list(verdict.alone) == [*steps, caller]


def test_nobody_is_to_blame_for_what_we_have_killed() -> None:
    stopped = step(1)
    stopped.stopped = 1.0
    other = step(2)
    verdict = judge([stopped, other], [], killed_by_us=True, ran_alone=False)
    assert (verdict.blamed, list(verdict.again), list(verdict.alone)) == (None, [other], [])


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exited with code 3"), (-signal.SIGSEGV, "SIGSEGV"), (-signal.SIGKILL, "memory"), (-250, "signal 250")],
)
def test_how_a_process_ended_is_said_in_words(code: int, words: str) -> None:
    assert words in describe_exit(code)


def test_runners_know_nothing_of_grpc() -> None:
    code = "import dalsegno_executor.runner.__main__, sys; sys.exit('grpc' in sys.modules or 'uvloop' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_coroutine_runs_in_the_context_that_runs_it() -> None:
    """Each step of a thread writes its own lines, and not the first one's."""
    present: ContextVar[str] = ContextVar("present")

    async def look() -> str:
        return present.get()

    loop = ThreadLoop()
    for one in ("first step", "second step"):
        present.set(one)
        assert loop.run(look()) == one
    loop.close()
