"""Recorded failures, and the errors that they become for whoever waits for an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalsegno.errors import (
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
_KIND_PREFIX = "DIVERGENCE_KIND_"


def failure_of(message: execution_pb2.Failure) -> Failure:
    """Return what a recorded failure says."""
    return Failure(
        origin=_origin(message.origin),
        message=message.message,
        exception_type=message.exception_type or None,
        traceback=message.traceback or None,
        invocation_id=message.invocation_id or None,
        attempt=message.attempt or None,
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
            return _divergence_error(message.divergence, failure, exec_id, text)
        case _:
            return ExecutionError(text, exec_id=exec_id, failure=failure)


def _divergence_error(
    divergence: execution_pb2.Divergence, failure: Failure, exec_id: str, text: str
) -> DivergenceError:
    from dalsegno.v1 import execution_pb2

    kind = execution_pb2.DivergenceKind.Name(divergence.kind).removeprefix(_KIND_PREFIX).lower()
    digests = {
        f"{side}.{name}": digest
        for side in ("expected", "actual")
        for name, digest in getattr(divergence, side).input_digests.items()
    }
    return DivergenceError(
        text,
        kind=DivergenceKind(kind) if kind in set(DivergenceKind) else DivergenceKind.GRAPH_CHANGED,
        position=divergence.position - 1 if divergence.position else None,
        expected=divergence.expected.invocation_id or None,
        actual=divergence.actual.invocation_id or None,
        digests=digests,
        exec_id=exec_id,
        failure=failure,
    )


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
