"""The stream to the planner: kept open, opened again, and fed by the session's state machine."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import grpc
import grpc.aio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from dalsegno.planner_addresses import LOAD_BALANCING, PlannerAddresses
from dalsegno.v1.executor_service_pb2 import ExecutorServiceWorkRequest, ExecutorServiceWorkResponse
from dalsegno.v1.executor_service_pb2_grpc import ExecutorServiceStub
from dalsegno_executor.events import Event, Welcomed
from dalsegno_executor.protocol import Session, State

_Call: TypeAlias = "grpc.aio.StreamStreamCall[ExecutorServiceWorkRequest, ExecutorServiceWorkResponse]"

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A connection that is taken and not answered is given up after this.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A planner that stands still is left before the lease is over, which is 15 s by default. The limit of keepalive is
    # for connections that are cut; where the other side's kernel still answers, that of pings counts, else a minute.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    LOAD_BALANCING,
)
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_DEFAULT_HEARTBEAT = 3.0
_SECONDS_TO_CLOSE = 2.0


class Refused(Exception):
    """The planner will not have this executor, however often it asks."""


class _Lost(Exception):
    """The stream could not be opened."""


class Stream:
    """Keeps a session with the planner.

    Args:
        address: ``host:port``, ``https://host:port`` or ``unix:/path``, or several with commas between them.
        session: The state machine.
        on_events: Takes what follows from the planner's messages.
        on_sent: Called when all that the session had to send is on its way.
        say: Told how the connection fares, for people.
    """

    def __init__(
        self,
        address: str,
        session: Session,
        on_events: Callable[[list[Event]], None],
        on_sent: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._addresses = PlannerAddresses(address)
        self._session = session
        self._on_events = on_events
        self._on_sent = on_sent
        self._say = say
        self._something_to_send = asyncio.Event()
        self._leaving = False
        self._left = asyncio.Event()
        self._heartbeat = _DEFAULT_HEARTBEAT
        self._welcomed = asyncio.Event()
        self._complaint = ""

    def wake(self) -> None:
        """Have what the session has to send written."""
        if self._leaving or self._session.has_something_to_send:
            self._something_to_send.set()

    def leave(self) -> None:
        """End the present stream once all is sent; another one is opened, as long as `keep` runs."""
        self._leaving = True
        self._left.clear()
        self.wake()

    async def left(self) -> None:
        """Wait until the stream that `leave` has ended is closed."""
        if self._session.state is not State.CLOSED:
            await self._left.wait()

    async def keep(self) -> None:
        """Open the stream, and open it again whenever it has ended; ends by being cancelled.

        Raises:
            Refused: If the planner says that it will not have this executor.
        """
        while True:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Lost),
                wait=wait_random_exponential(multiplier=0.1, max=2, min=0.05),
                before_sleep=self._say_lost,
            ):
                with attempt:
                    await self._talk()
            self._addresses.turn()
            # Not all executors at once, where a planner that many were connected to has gone.
            await asyncio.sleep(random.uniform(0.0, 0.2))  # noqa: S311 - jitter

    async def _talk(self) -> None:
        """Open one stream, and use it to its end.

        Raises:
            _Lost: If the planner did not answer.
        """
        self._leaving = False
        try:
            async with _channel(self._addresses.current) as channel:
                await self._converse(ExecutorServiceStub(channel).Work())
        except grpc.aio.AioRpcError as error:
            planner = f"the planner at {self._addresses.current}"
            if error.code() in _REFUSALS:
                raise Refused(f"{planner} refused this executor: {error.details()}") from error
            if self._session.state is not State.OPEN:
                raise _Lost(f"{error.code().name}: {error.details()}") from error
            self._say(f"lost {planner} ({error.code().name}: {error.details()})")
        finally:
            self._session.disconnect()
            self._left.set()

    async def _converse(self, call: _Call) -> None:
        await call.write(self._session.connect())
        async with self._company(call):
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    assert isinstance(response, ExecutorServiceWorkResponse)
                    self._take(response)
            except asyncio.CancelledError:
                # Where the reader itself is cancelled, that has cancelled the call as well.
                if _is_cancelled() or not (self._leaving and call.cancelled()):
                    raise

    @contextlib.asynccontextmanager
    async def _company(self, call: _Call) -> AsyncIterator[None]:
        """Write and beat while the body of this context reads."""
        tasks = [asyncio.create_task(self._write(call)), asyncio.create_task(self._beat())]
        tasks[0].add_done_callback(lambda task: _end_if_failed(task, call))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            # What a writer meets on a stream that has ended, the reader meets too, with the status.
            with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
                await tasks[0]

    def _take(self, response: ExecutorServiceWorkResponse) -> None:
        events = self._session.receive(response)
        for event in events:
            if isinstance(event, Welcomed):
                self._heartbeat = event.welcome.heartbeat_interval.ToNanoseconds() / 1e9 or _DEFAULT_HEARTBEAT
                self._welcomed.set()
                self._complaint = ""
                self._say(f"connected to the planner at {self._addresses.current}")
        self._on_events(events)
        self.wake()

    async def _write(self, call: _Call) -> None:
        while True:
            while (message := self._session.next_message()) is not None:
                await call.write(message)
            self._on_sent()
            if self._leaving:
                await call.done_writing()
                asyncio.get_running_loop().call_later(_SECONDS_TO_CLOSE, call.cancel)
                return
            await self._something_to_send.wait()
            self._something_to_send.clear()

    async def _beat(self) -> None:
        # The planner says how often; its lease may be shorter than what is usual.
        await self._welcomed.wait()
        while True:
            await asyncio.sleep(self._heartbeat)
            self._session.alive()
            self.wake()

    def _say_lost(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        complaint = str(error)
        if complaint != self._complaint:
            self._say(f"cannot reach the planner at {self._addresses.current} ({complaint}); trying until it answers")
        self._complaint = complaint
        self._addresses.turn()


def _channel(address: str) -> grpc.aio.Channel:
    if address.startswith("https://"):
        credentials = grpc.ssl_channel_credentials()
        return grpc.aio.secure_channel(address.removeprefix("https://"), credentials, options=_CHANNEL_OPTIONS)
    return grpc.aio.insecure_channel(address.removeprefix("http://"), options=_CHANNEL_OPTIONS)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _end_if_failed(task: asyncio.Task[None], call: _Call) -> None:
    if not task.cancelled() and task.exception() is not None:
        call.cancel()
