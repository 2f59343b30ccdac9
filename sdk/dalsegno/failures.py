"""Recorded failures, and the errors that they become for whoever waits for an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalsegno.divergences import difference_text, divergence_of
from dalsegno.errors import (
    Divergence,
    DivergenceError,
    DivergenceKind,
    ExecutionError,
    Failure,
    FailureOrigin,
    UserCodeError,
)

if TYPE_CHECKING:
    from dalsegno.v1 import execution_pb2

_ORIGIN_PREFIX = "FAILURE_ORIGIN_"


def failure_of(message: execution_pb2.Failure) -> Failure:
    """Return what a recorded failure says."""
    return Failure(
        origin=_origin(message.origin),
        message=message.message,
        exception_type=message.exception_type or None,
        traceback=message.traceback or None,
        invocation_id=message.invocation_id or None,
        attempt=message.attempt or None,
        divergence=divergence_of(message.divergence) if message.HasField("divergence") else None,
        reason=message.reason or None,
    )


def failure_error(message: execution_pb2.Failure, exec_id: str, what: str) -> ExecutionError:
    """Return the error of an execution or a call that failed.

    Args:
        message: Why it failed.
        exec_id: The execution.
        what: How the error names it, such as ``flow 'article'``.
    """
    failure = failure_of(message)
    error = _error(message, failure, exec_id, f"{what} failed{_place(failure)}: {_said(failure)}")
    if failure.traceback and failure.origin is FailureOrigin.USER_CODE:
        error.add_note(f"Where it was raised:\n{failure.traceback.rstrip()}")
    return error


def _error(message: execution_pb2.Failure, failure: Failure, exec_id: str, text: str) -> ExecutionError:
    match failure.origin:
        case FailureOrigin.USER_CODE:
            return UserCodeError(text, exec_id=exec_id, failure=failure)
        case FailureOrigin.DIVERGENCE:
            return _divergence_error(failure, exec_id, text)
        case _:
            return ExecutionError(text, reason=failure.reason, exec_id=exec_id, failure=failure)


def _divergence_error(failure: Failure, exec_id: str, text: str) -> DivergenceError:
    divergence = failure.divergence or Divergence(DivergenceKind.GRAPH_CHANGED)
    sides = {"expected": divergence.expected, "actual": divergence.actual}
    error = DivergenceError(
        text,
        kind=divergence.kind,
        position=divergence.position,
        expected=divergence.expected.invocation_id if divergence.expected else None,
        actual=divergence.actual.invocation_id if divergence.actual else None,
        digests={f"{side}.{name}": one for side, call in sides.items() if call for name, one in call.digests.items()},
        exec_id=exec_id,
        failure=failure,
    )
    difference = difference_text(divergence)
    if difference:
        error.add_note(difference)
    return error


def _origin(message: execution_pb2.FailureOrigin.ValueType) -> FailureOrigin:
    from dalsegno.v1 import execution_pb2

    name = execution_pb2.FailureOrigin.Name(message).removeprefix(_ORIGIN_PREFIX).lower()
    return FailureOrigin(name) if name in set(FailureOrigin) else FailureOrigin.UNKNOWN


def _place(failure: Failure) -> str:
    return f" in {failure.invocation_id!r}" if failure.invocation_id else ""


def _said(failure: Failure) -> str:
    if failure.origin is not FailureOrigin.USER_CODE or not failure.exception_type:
        return failure.message
    kind = failure.exception_type.rpartition(":")[2]
    return f"{kind}: {failure.message}" if failure.message else kind
