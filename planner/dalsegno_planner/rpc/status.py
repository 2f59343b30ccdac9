"""The one place where errors become gRPC statuses with details."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import asyncpg
import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from obstore.exceptions import BaseError as ObjectStoreError

from dalsegno.errors import (
    AuthError,
    BackendError,
    ContextError,
    DalsegnoError,
    DivergenceError,
    ExecutionError,
    NotFoundError,
    Problem,
    StateError,
    UsageError,
    WaitTimeoutError,
)
from dalsegno_planner.store.pool import DATABASE_LOST, TO_BE_REPEATED

DOMAIN = "dalsegno"
DETAILS_KEY = "grpc-status-details-bin"

_STATUS_CODES: tuple[tuple[type[DalsegnoError], grpc.StatusCode], ...] = (
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (StateError, grpc.StatusCode.FAILED_PRECONDITION),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (ContextError, grpc.StatusCode.FAILED_PRECONDITION),
    (AuthError, grpc.StatusCode.UNAUTHENTICATED),
    (BackendError, grpc.StatusCode.UNAVAILABLE),
    (WaitTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (ExecutionError, grpc.StatusCode.ABORTED),
)

# Clients take 8 KiB of metadata by default, the message and, in base64, all details included.
_LONGEST_MESSAGE = 1_200
_LONGEST_FIELD = 300
_LONGEST_PROBLEM = 2_000
_ALL_PROBLEMS = 2_800

_CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in DATABASE_LOST if kind is not asyncpg.InterfaceError),
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Servicer = TypeVar("Servicer")

_log = structlog.get_logger("dalsegno.planner.rpc")


def as_dalsegno_error(error: Exception) -> DalsegnoError | None:
    """Return the error that a client is told; None for one that nobody foresaw."""
    if isinstance(error, DalsegnoError):
        return error
    if isinstance(error, ObjectStoreError):
        return BackendError(
            f"the object store failed: {error}", reason="OBJECT_STORE_FAILED", fields={"store": "objects"}
        )
    if _says_that_the_database_is_gone(error):
        return BackendError(
            "the planner's database cannot be reached now; the planner reconnects by itself, so try again",
            reason="DATABASE_UNAVAILABLE",
        )
    if isinstance(error, TO_BE_REPEATED):
        return BackendError(
            "others were at the same execution again and again; nothing has changed, so try again",
            reason="DATABASE_BUSY",
        )
    return None


def status_of(error: DalsegnoError) -> status_pb2.Status:
    """Return the status, its details included: ErrorInfo always, and what its class calls for."""
    code = next((code for kind, code in _STATUS_CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    status = status_pb2.Status(code=code.value[0], message=_cut(error.message, _LONGEST_MESSAGE))
    for detail in (_error_info(error), *_class_details(error)):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


class ErrorMapping:
    """Adds services to a server so that every error of theirs becomes a status.

    It stands for the server in the generated functions and wraps each method once. An interceptor is asked each time.

    Args:
        server: The server.
        refusal: Returns why no request can be served now; None where all is well.
    """

    def __init__(self, server: grpc.aio.Server, refusal: Callable[[], DalsegnoError | None]) -> None:
        self._server = server
        self._refusal = refusal

    def add(self, add_to_server: Callable[[Servicer, Any], None], servicer: Servicer) -> None:
        """Add a service by the function that was generated for it."""
        add_to_server(servicer, self)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Leave them to `add_registered_method_handlers`, which is told the same methods with their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        mapped = {name: self._mapped(handler, f"/{service}/{name}") for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, mapped),))

    def _mapped(self, handler: Handler, method: str) -> Handler:
        serving = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, method), **serving)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method), **serving)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._single(handler.stream_unary, method), **serving)
        return grpc.unary_unary_rpc_method_handler(self._single(handler.unary_unary, method), **serving)

    def _single(self, behaviour: Any, method: str) -> Any:
        async def respond(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                self._check()
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the client gets a status
                await _abort(context, error, method)

        return respond

    def _streaming(self, behaviour: Any, method: str) -> Any:
        async def respond(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                self._check()
                async for response in behaviour(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001 - as above
                await _abort(context, error, method)

        return respond

    def _check(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            raise refusal


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    told = as_dalsegno_error(error)
    if told is None:
        _log.error("unexpected_error", method=method, exc_info=error)
        told = DalsegnoError(
            "the planner failed in a way that was not foreseen; its log has the traceback", reason="INTERNAL"
        )
    elif isinstance(told, BackendError):
        _log.warning("backend_error", method=method, reason=told.reason, error=str(error) or type(error).__name__)
    status = status_of(told)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, trailing_metadata=((DETAILS_KEY, status.SerializeToString()),))


def _error_info(error: DalsegnoError) -> Message:
    fields = {name: _cut(str(value), _LONGEST_FIELD) for name, value in error.fields.items()}
    if isinstance(error, DivergenceError):
        fields["kind"] = error.kind.value
    info: Message = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=fields)
    return info


def _class_details(error: DalsegnoError) -> Iterator[Message]:
    problems = _told_problems(error.problems)
    if isinstance(error, NotFoundError):
        kind, name = next(iter(error.fields.items()), ("", ""))
        text = _cut(error.message, _LONGEST_FIELD)
        yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description=text)
    if isinstance(error, UsageError) or (isinstance(error, NotFoundError) and problems):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=text) for field, text in problems
        ]
        yield error_details_pb2.BadRequest(field_violations=violations)
    elif isinstance(error, StateError | ExecutionError | ContextError):
        listed = problems or [("", _cut(error.message, _LONGEST_FIELD))]
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(type=error.reason, subject=field, description=text)
                for field, text in listed
            ]
        )


def _told_problems(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    """As many problems as fit, and how many there are besides."""
    told: list[tuple[str, str]] = []
    left = _ALL_PROBLEMS
    for problem in problems:
        field, text = _cut(problem.field, _LONGEST_FIELD), _cut(problem.description, _LONGEST_PROBLEM)
        left -= len(field.encode()) + len(text.encode())
        if left < 0:
            return [*told, ("", f"and {len(problems) - len(told)} more problems")]
        told.append((field, text))
    return told


def _says_that_the_database_is_gone(error: BaseException | None) -> bool:
    """An InterfaceError is also what misuse raises. It counts where it says so, or a lost connection led to it."""
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error) or _says_that_the_database_is_gone(error.__context__)
    return isinstance(error, _CONNECTION_ERRORS)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
