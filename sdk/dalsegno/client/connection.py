"""A client's connection to a planner: one channel, retries where they are safe, errors as ours."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import grpc
import tenacity

from dalsegno.client.pushing import push
from dalsegno.client.status import error_of
from dalsegno.durable import refuse_inside
from dalsegno.errors import DalsegnoError
from dalsegno.planner_addresses import LOAD_BALANCING, PlannerAddresses
from dalsegno.project import project_name
from dalsegno.v1 import execution_service_pb2
from dalsegno.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from dalsegno.v1.execution_service_pb2 import ExecutionServiceImportResponse
from dalsegno.v1.execution_service_pb2_grpc import ExecutionServiceStub
from dalsegno.v1.log_service_pb2_grpc import LogServiceStub
from dalsegno.v1.replay_service_pb2_grpc import ReplayServiceStub
from dalsegno.v1.wait_service_pb2_grpc import WaitServiceStub

ADDRESS_SETTING = "DALSEGNO_ADDRESS"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CALL_TIMEOUT_S = 120.0
RETRY_FOR_S = 6.0
KEEPALIVE_MS = 10_000
CONNECT_MS = 5_000
SINGLE_THREADED_STREAMS = "SingleThreadedUnaryStream"

_IMPORT = execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"].methods_by_name["Import"]

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)
T = TypeVar("T")


class Method(Protocol[Request, Response]):
    """A call of a stub: one request, or an iterator of them, for one response."""

    def __call__(self, request: Request, /, *, timeout: float | None = None) -> Response: ...


class Stubs:
    """The services of one planner.

    Attributes:
        serialized_import: `ExecutionService.Import` for requests that are bytes already.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.executions = ExecutionServiceStub(channel)
        self.replays = ReplayServiceStub(channel)
        self.waits = WaitServiceStub(channel)
        self.artifacts = ArtifactServiceStub(channel)
        self.logs = LogServiceStub(channel)
        self.serialized_import: grpc.StreamUnaryMultiCallable[bytes, ExecutionServiceImportResponse] = (
            channel.stream_unary(
                f"/{_IMPORT.containing_service.full_name}/{_IMPORT.name}",
                response_deserializer=ExecutionServiceImportResponse.FromString,
            )
        )


class Connection:
    """Reaches a planner; opened at first use, and anew in a forked process.

    Attributes:
        has_been_answered: Whether a planner has ever answered here.

    Args:
        address: ``host:port``, ``https://host:port`` or ``unix:/path``, or several with commas between them;
            ``DALSEGNO_ADDRESS`` where none is given, and without that the local engine, which is started if need be.
        project: The project that names are looked up in; see `dalsegno.project.project_name`.
    """

    def __init__(self, address: str | None = None, project: str | None = None) -> None:
        configured = address or os.environ.get(ADDRESS_SETTING, "").strip()
        self._configured = PlannerAddresses(configured) if configured else None
        self.project = project or project_name()
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: Stubs | None = None
        self._address = ""
        self._process = os.getpid()
        self.has_been_answered = False

    @property
    def is_local_engine(self) -> bool:
        """Whether the planner is the one that this user's scripts start by themselves."""
        return self._configured is None

    @property
    def address(self) -> str:
        """Where the planner is."""
        self._opened()
        return self._address

    @property
    def is_open(self) -> bool:
        """Whether this process has a channel to it now, which the next call would use."""
        return self._stubs is not None and self._process == os.getpid()

    def call(
        self,
        service: Callable[[Stubs], Method[Request, Response]],
        request: Request,
        *,
        idempotent: bool = True,
        timeout: float | None = CALL_TIMEOUT_S,
    ) -> Response:
        """Make a unary call.

        Args:
            service: Chooses the method, such as ``lambda stubs: stubs.executions.Get``.
            request: The request.
            idempotent: Whether it may be sent again when no planner answers.
            timeout: Seconds for one try.

        Raises:
            DalsegnoError: What the planner answered; `BackendError` where none did.
        """
        return self._retried(lambda stubs: service(stubs)(request, timeout=timeout), idempotent=idempotent)

    def send_stream(
        self,
        service: Callable[[Stubs], Method[Iterator[Request], Response]],
        requests: Callable[[], Iterable[Request]],
        *,
        idempotent: bool = True,
    ) -> Response:
        """Make a call that streams its request; `requests` is asked anew for each try."""
        return self._retried(lambda stubs: service(stubs)(iter(requests()), timeout=None), idempotent=idempotent)

    def push(self, service: Callable[[Stubs], Callable[[Iterator[Request]], Any]], requests: Iterable[Request]) -> Any:
        """Make a call that streams its request while that is made, in this thread; not retried.

        Args:
            service: Chooses what starts the call, such as ``lambda stubs: stubs.executions.Import.future``.
            requests: The messages. What they raise cancels the call.

        Raises:
            DalsegnoError: What the planner answered; `BackendError` where none did.
        """
        try:
            return push(service(self._opened()), requests)
        except grpc.RpcError as error:
            raise self.error(error) from None

    def read_stream(
        self, service: Callable[[Stubs], Any], request: object, *, timeout: float | None = None
    ) -> Iterator[Any]:
        """Make a call that streams its response; not retried, as what came has been handed on.

        Raises:
            TimeoutError: If `timeout` seconds pass before the stream ends.
        """
        stubs = self._opened()
        stream = service(stubs)(request, timeout=timeout)
        try:
            yield from stream
        except grpc.RpcError as error:
            if timeout is not None and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            told = error_of(error, self._address)
            self._turn_from(stubs, error)
            raise told from None
        finally:
            stream.cancel()

    def close(self) -> None:
        """Close the channel. The next call opens another one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._channel is not None and self._process == os.getpid():
            self._channel.close()
        self._channel = self._stubs = None

    def _retried(self, call: Callable[[Stubs], T], *, idempotent: bool) -> T:
        try:
            answer = self._tried(call, idempotent=idempotent)
        except grpc.RpcError as error:
            raise self.error(error) from None
        self.has_been_answered = True
        return answer

    def _tried(self, call: Callable[[Stubs], T], *, idempotent: bool) -> T:
        try:
            return self._attempt(call)
        except grpc.RpcError as error:
            if not (idempotent and _is_unanswered(error)):
                raise
        # For what has failed alone: to prepare for it costs a sixth of a call.
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_unanswered),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
            stop=tenacity.stop_after_delay(RETRY_FOR_S),
            reraise=True,
        )
        return attempts(lambda: self._attempt(call))

    def _attempt(self, call: Callable[[Stubs], T]) -> T:
        stubs = self._opened()
        try:
            return call(stubs)
        except grpc.RpcError as error:
            self._turn_from(stubs, error)
            raise

    def error(self, error: grpc.RpcError) -> DalsegnoError:
        """Return what a status means."""
        return error_of(error, self._address)

    def _opened(self) -> Stubs:
        # Every call comes here: also those of a client that was made outside.
        refuse_client_inside()
        with self._lock:
            if self._stubs is None or self._process != os.getpid():
                self._address = self._configured.current if self._configured is not None else _local_engine()
                # A channel of the parent is of no use after a fork, and closing it would wait for threads
                # that are gone.
                self._channel = _channel(self._address)
                self._stubs = Stubs(self._channel)
                self._process = os.getpid()
            return self._stubs

    def _turn_from(self, stubs: Stubs, error: grpc.RpcError) -> None:
        """Turn to another planner where this one has not answered, unless another thread has turned already."""
        if not _is_unanswered(error):
            return
        with self._lock:
            if self._stubs is not stubs:
                return
            if self._configured is not None:
                self._configured.turn()
            # The local engine may have been stopped since, and is then started again, perhaps elsewhere.
            if self._configured is None or len(self._configured) > 1:
                self._close()


def refuse_client_inside() -> None:
    """Refuse what only a script may do: what a body or a step asks of a planner, no replay could repeat.

    Raises:
        ContextError: Inside a body or a step.
    """
    refuse_inside("a Client cannot be used", "pass what it would fetch as an argument, or ask from a script")


def new_request_id() -> str:
    """Return an ID that makes a creation idempotent."""
    return str(uuid.uuid4())


def _is_unanswered(error: BaseException) -> bool:
    """Whether no planner has answered. One that stops cancels what comes to it yet; no request is cancelled here."""
    unanswered = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return isinstance(error, grpc.RpcError) and error.code() in unanswered


def _local_engine() -> str:
    from dalsegno.local.engine import ensure_engine

    return ensure_engine()


def _channel(address: str) -> grpc.Channel:
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
        # Who waits for an execution notices when nothing comes through, though nobody closes the connection; and,
        # by the limit of pings, where a planner stands still whose kernel answers.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS),
        ("grpc.http2.max_pings_without_data", 0),
        # Who waits for an execution reads in its own thread: without this, each wait starts another one to read in.
        (SINGLE_THREADED_STREAMS, 1),
        LOAD_BALANCING,
    ]
    if address.startswith("https://"):
        return grpc.secure_channel(address.removeprefix("https://"), grpc.ssl_channel_credentials(), options=options)
    return grpc.insecure_channel(address.removeprefix("http://"), options=options)
