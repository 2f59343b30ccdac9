"""What a failed attempt of a step is reported as: to be tried again, or failed for good."""

from __future__ import annotations

import random
from collections.abc import Collection

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.definitions import settings_of
from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.execution_pb2 import Attempt, Failure
from dalsegno.v1.executor_service_pb2 import AttemptFailed, Call, CallSubmitted, Report, Task, TaskFailed
from dalsegno.values.classes import exception_name

_NANOSECONDS = 1_000_000_000


def timestamp(nanoseconds: int) -> Timestamp:
    """Return a time since the epoch as a message."""
    seconds, nanos = divmod(nanoseconds, _NANOSECONDS)
    return Timestamp(seconds=seconds, nanos=nanos)


def set_time(field: Timestamp, nanoseconds: int) -> None:
    """Set a field of a message to a time since the epoch, without another message in between."""
    field.seconds, field.nanos = divmod(nanoseconds, _NANOSECONDS)


def duration(seconds: float) -> Duration:
    """Return a time span as a message."""
    whole, nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return Duration(seconds=whole, nanos=nanos)


def retry_delay(options: StepOptions, attempt: int, chance: float) -> float:
    """Return how many seconds to wait after an attempt, from 1, has failed; `chance` is from 0 to 1, evenly."""
    settings = settings_of(options)
    delay = min(settings.max_retry_delay, settings.retry_delay * 2.0 ** min(attempt - 1, 32))
    return min(settings.max_retry_delay, delay * (1.0 + settings.retry_jitter * (2.0 * chance - 1.0)))


def may_retry(options: StepOptions, raised: Collection[str]) -> bool:
    """Return whether an attempt is tried again, as long as there are retries left.

    Args:
        options: Those of the step.
        raised: Names of the exception and of what it is a subclass of; empty where the step's code has raised none.
    """
    if not raised:
        return True
    if not set(options.no_retry_on).isdisjoint(raised):
        return False
    return not options.retry_on or not set(options.retry_on).isdisjoint(raised)


def names_of(error: type[BaseException]) -> tuple[str, ...]:
    """Return the names of an exception and of what it is a subclass of, as `retry_on` has them."""
    return tuple(exception_name(cls) for cls in error.__mro__ if issubclass(cls, BaseException))


def failed_step(
    task: Task,
    failure: Failure,
    started: Timestamp,
    finished: Timestamp,
    code_digest: str,
    raised: Collection[str] = (),
) -> Report:
    """Report that an attempt of a step task has failed; `raised` is as in `may_retry`."""
    step = task.step
    attempt = max(1, step.attempt)
    failure.invocation_id = step.invocation_id
    failure.attempt = step.attempts_before + attempt
    if attempt <= step.options.retries and may_retry(step.options, raised):
        failed = Attempt(attempt=attempt, started_at=started, finished_at=finished, failure=failure)
        delay = duration(_delay(step.options, attempt))
        return Report(token=task.token, attempt_failed=AttemptFailed(attempt=failed, delay=delay))
    return Report(token=task.token, failed=_failed(failure, started, finished, code_digest))


def failed_call(
    call: Call,
    failure: Failure,
    started: Timestamp,
    finished: Timestamp,
    code_digest: str,
    raised: Collection[str] = (),
    attempts_before: int = 0,
) -> Call:
    """Turn a call that a body ran itself into one that has failed its first attempt.

    Where it is to be tried again, it becomes a call for any executor.
    """
    failure.invocation_id = call.invocation_id
    failure.attempt = attempts_before + 1
    if call.options.retries and may_retry(call.options, raised):
        attempt = Attempt(attempt=1, started_at=started, finished_at=finished, failure=failure)
        call.failed_attempts.append(attempt)
        delay = duration(_delay(call.options, 1))
        call.submitted.CopyFrom(CallSubmitted(code_digest=code_digest, delay=delay))
    else:
        call.failed.CopyFrom(_failed(failure, started, finished, code_digest))
    return call


def _delay(options: StepOptions, attempt: int) -> float:
    return retry_delay(options, attempt, random.random())  # noqa: S311 - jitter


def _failed(failure: Failure, started: Timestamp, finished: Timestamp, code_digest: str) -> TaskFailed:
    return TaskFailed(failure=failure, started_at=started, finished_at=finished, code_digest=code_digest)
