"""Exceptions as failures, and failures as the exceptions that they were."""

from __future__ import annotations

import traceback
from types import TracebackType

from dalsegno import errors
from dalsegno.errors import DalsegnoError, UsageError, UserCodeError
from dalsegno.payloads import from_payload, inline_payload
from dalsegno.v1.execution_pb2 import (
    FAILURE_ORIGIN_BACKEND,
    FAILURE_ORIGIN_RUNTIME,
    FAILURE_ORIGIN_UNSPECIFIED,
    FAILURE_ORIGIN_USER_CODE,
    Failure,
    FailureOrigin,
)
from dalsegno.values import encode
from dalsegno.values.classes import exception_name, find_class
from dalsegno.values.refusal import Refusal

_MESSAGE_LIMIT = 64 * 1024
_TRACEBACK_LIMIT = 256 * 1024
_ARGUMENTS_LIMIT = 64 * 1024
_OWN_PACKAGE = "dalsegno_executor"

USER_CODE = FAILURE_ORIGIN_USER_CODE
RUNTIME = FAILURE_ORIGIN_RUNTIME
BACKEND = FAILURE_ORIGIN_BACKEND


def failure_of(
    error: BaseException, origin: FailureOrigin.ValueType, *, invocation_id: str = "", attempt: int = 0
) -> Failure:
    """Return what is recorded of an exception; its traceback starts in the user's code."""
    failure = Failure(
        origin=origin,
        message=_message(error),
        exception_type=type_name(type(error)),
        traceback=_traceback(error),
        invocation_id=invocation_id,
        attempt=attempt,
        reason=error.reason if isinstance(error, DalsegnoError) else "",
    )
    try:
        arguments = encode(error.args)
    except UsageError:
        return failure
    if arguments.codec == "json" and arguments.size <= _ARGUMENTS_LIMIT:
        failure.exception_args.CopyFrom(inline_payload(arguments))
    return failure


def type_name(cls: type[BaseException]) -> str:
    """Return the name under which a class is found again."""
    return exception_name(cls)


def exception_of(failure: Failure) -> Exception:
    """Return the exception that a failure was, as near as it can be rebuilt.

    It is of the original class where that can be imported and takes the recorded arguments. Otherwise it is a
    `UserCodeError`, and an `ExecutionError` where it was not the step's code that raised it, as where its process died.
    The recorded traceback is added as a note.
    """
    by_code = failure.origin == FAILURE_ORIGIN_USER_CODE
    kind = UserCodeError if by_code else errors.ExecutionError
    error = _original(failure) or kind(failure.message, failure=_public(failure), reason=failure.reason or None)
    if failure.traceback:
        error.add_note(f"recorded in {_place(failure)}:\n{failure.traceback.rstrip()}")
    return error


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - __str__ is user code
        text = f"<the text of this {type(error).__name__} cannot be had>"
    return _storable(text, _MESSAGE_LIMIT)


def _traceback(error: BaseException) -> str:
    start = _users_part(error.__traceback__)
    try:
        lines = traceback.format_exception(type(error), error, start)
    except Exception:  # noqa: BLE001 - __str__ and __repr__ are user code
        lines = traceback.format_tb(start)
    return _storable("".join(lines), _TRACEBACK_LIMIT)


def _storable(text: str, limit: int) -> str:
    """Return the text as protobuf and Postgres take it: valid UTF-8, no zero characters, not endless."""
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return clean if len(clean) <= limit else f"{clean[: limit // 2]}\n[…]\n{clean[-limit // 2 :]}"


def _users_part(start: TracebackType | None) -> TracebackType | None:
    while start is not None and start.tb_next is not None and _is_own(start):
        start = start.tb_next
    return start


def _is_own(step: TracebackType) -> bool:
    return str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == _OWN_PACKAGE


def _original(failure: Failure) -> Exception | None:
    cls = _class_named(failure.exception_type)
    if cls is None:
        return None
    if issubclass(cls, DalsegnoError):
        return None if issubclass(cls, errors.ExecutionError) else cls(failure.message, reason=failure.reason or None)
    if not failure.HasField("exception_args"):
        return None
    try:
        error = cls(*from_payload(failure.exception_args, None))
        same = type(error) is cls and str(error) == failure.message
    except Exception:  # noqa: BLE001 - constructors are user code
        return None
    return error if same else None


def _class_named(name: str) -> type[Exception] | None:
    try:
        found = find_class(name)
    except (Refusal, ValueError):
        return None
    return found if issubclass(found, Exception) else None


def _public(failure: Failure) -> errors.Failure:
    origin = FailureOrigin.Name(failure.origin).removeprefix("FAILURE_ORIGIN_").lower()
    known = failure.origin != FAILURE_ORIGIN_UNSPECIFIED
    return errors.Failure(
        origin=errors.FailureOrigin(origin) if known else errors.FailureOrigin.UNKNOWN,
        message=failure.message,
        exception_type=failure.exception_type or None,
        traceback=failure.traceback or None,
        invocation_id=failure.invocation_id or None,
        attempt=failure.attempt or None,
        reason=failure.reason or None,
    )


def _place(failure: Failure) -> str:
    return f"{failure.invocation_id or 'the body'}, attempt {failure.attempt or 1}"
