"""gRPC statuses back into the errors that they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dalsegno.errors import (
    AuthError,
    BackendError,
    ContextError,
    DalsegnoError,
    DivergenceError,
    DivergenceKind,
    ExecutionError,
    NotFoundError,
    Problem,
    StateError,
    UsageError,
    UserCodeError,
    WaitTimeoutError,
    WaitValidationError,
)

DOMAIN = "dalsegno"

_CLASSES: Mapping[grpc.StatusCode, type[DalsegnoError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: UsageError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: AuthError,
    grpc.StatusCode.PERMISSION_DENIED: AuthError,
    grpc.StatusCode.ABORTED: ExecutionError,
}
# Classes that share a status code with another are told apart by their own reason.
_CLASSES_BY_REASON: Mapping[str, type[DalsegnoError]] = {
    WaitValidationError.default_reason: WaitValidationError,
    ContextError.default_reason: ContextError,
    UserCodeError.default_reason: UserCodeError,
    WaitTimeoutError.default_reason: WaitTimeoutError,
}


def error_of(error: Any, address: str) -> DalsegnoError:
    """Return the error that a planner meant by a status; a `BackendError` where no planner spoke.

    Args:
        error: What gRPC raised.
        address: Where the planner was asked.
    """
    code: grpc.StatusCode = error.code()
    status = rpc_status.from_call(error)
    info = _detail(status, error_details_pb2.ErrorInfo) if status is not None else None
    if status is None or info is None or info.domain != DOMAIN:
        return _transport_error(code, error.details() or "", address)
    fields = dict(info.metadata)
    problems = [problem for problem in _problems(status) if not _repeats(problem, status.message)]
    if code is grpc.StatusCode.ABORTED and fields.get("kind") in set(DivergenceKind):
        kind = DivergenceKind(fields["kind"])
        return DivergenceError(status.message, kind=kind, reason=info.reason, fields=fields, problems=problems)
    cls = _CLASSES_BY_REASON.get(info.reason) or _CLASSES.get(code, BackendError)
    return cls(status.message, reason=info.reason, fields=fields, problems=problems)


def _problems(status: status_pb2.Status) -> Iterable[Problem]:
    request = _detail(status, error_details_pb2.BadRequest)
    if request is not None:
        yield from (Problem(one.field, one.description) for one in request.field_violations)
    state = _detail(status, error_details_pb2.PreconditionFailure)
    if state is not None:
        yield from (Problem(one.subject, one.description) for one in state.violations)


def _repeats(problem: Problem, message: str) -> bool:
    """Whether a problem is the message once more, perhaps cut short: a status has to name one, an error has not."""
    cut = problem.description.removesuffix("…")
    return not problem.field and message.startswith(cut) and (cut == message or cut != problem.description)


def _detail(status: status_pb2.Status, kind: Any) -> Any:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None


def _transport_error(code: grpc.StatusCode, details: str, address: str) -> DalsegnoError:
    fields = {"address": address, "code": code.name}
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return BackendError(
                f"no planner answers at {address}: {details}. Start one (dalsegno planner), set "
                "DALSEGNO_ADDRESS to where one is, or unset it for the local engine",
                reason="PLANNER_UNREACHABLE",
                fields=fields,
            )
        case grpc.StatusCode.CANCELLED:
            return BackendError(
                f"the planner at {address} stopped before it had answered; try again", reason=code.name, fields=fields
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return BackendError(
                f"what answers at {address} is no planner, or of another version: {details}",
                reason="UNIMPLEMENTED",
                fields=fields,
            )
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return AuthError(f"{address} does not allow this: {details}", fields=fields)
        case _:
            return BackendError(f"{address} answered {code.name}: {details}", reason=code.name, fields=fields)
