"""What a failed attempt of a step is reported as: to be tried again, or failed for good."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.definitions import settings_of
from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.execution_pb2 import Attempt, Failure
from dalsegno.v1.executor_service_pb2 import AttemptFailed, Call, CallSubmitted, Report, Task, TaskFailed

LONGEST_DELAY = 24 * 60 * 60.0
"""Seconds. However many attempts have failed, the next one does not wait longer."""

_NANOSECONDS = 1_000_000_000


def timestamp(nanoseconds: int) -> Timestamp:
    """Return a time since the epoch as a message."""
    seconds, nanos = divmod(nanoseconds, _NANOSECONDS)
    return Timestamp(seconds=seconds, nanos=nanos)


def duration(seconds: float) -> Duration:
    """Return a time span as a message."""
    whole, nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return Duration(seconds=whole, nanos=nanos)


def retry_delay(options: StepOptions, attempt: int) -> float:
    """Return how many seconds to wait after an attempt, from 1, has failed."""
    base = settings_of(options).retry_delay
    return float(min(LONGEST_DELAY, base * 2.0 ** min(attempt - 1, 32)))


def failed_step(task: Task, failure: Failure, started: Timestamp, finished: Timestamp, code_digest: str) -> Report:
    """Report that an attempt of a step task has failed."""
    step = task.step
    attempt = max(1, step.attempt)
    failure.invocation_id = step.invocation_id
    failure.attempt = attempt
    if attempt <= step.options.retries:
        failed = Attempt(attempt=attempt, started_at=started, finished_at=finished, failure=failure)
        delay = duration(retry_delay(step.options, attempt))
        return Report(token=task.token, attempt_failed=AttemptFailed(attempt=failed, delay=delay))
    return Report(token=task.token, failed=_failed(failure, started, finished, code_digest))


def failed_call(call: Call, failure: Failure, started: Timestamp, finished: Timestamp, code_digest: str) -> Call:
    """Turn a call that a body ran itself into one that has failed its first attempt.

    Where it is to be tried again, it becomes a call for any executor.
    """
    failure.invocation_id = call.invocation_id
    failure.attempt = 1
    if call.options.retries:
        attempt = Attempt(attempt=1, started_at=started, finished_at=finished, failure=failure)
        call.failed_attempts.append(attempt)
        delay = duration(retry_delay(call.options, 1))
        call.submitted.CopyFrom(CallSubmitted(code_digest=code_digest, delay=delay))
    else:
        call.failed.CopyFrom(_failed(failure, started, finished, code_digest))
    return call


def _failed(failure: Failure, started: Timestamp, finished: Timestamp, code_digest: str) -> TaskFailed:
    return TaskFailed(failure=failure, started_at=started, finished_at=finished, code_digest=code_digest)
