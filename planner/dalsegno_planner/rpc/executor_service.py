"""The stream on which executors get their work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from grpc import aio

from dalsegno.errors import DalsegnoError, UsageError
from dalsegno.v1 import executor_service_pb2, executor_service_pb2_grpc
from dalsegno_planner.dispatch.delivery import outgoing_messages
from dalsegno_planner.dispatch.dispatcher import PROTOCOL_VERSION, Dispatcher
from dalsegno_planner.dispatch.sessions import Session

Request = executor_service_pb2.ExecutorServiceWorkRequest
Response = executor_service_pb2.ExecutorServiceWorkResponse


class ExecutorServicer(executor_service_pb2_grpc.ExecutorServiceServicer):
    """Converts between the stream and the dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def Work(
        self, request_iterator: AsyncIterator[Request], context: aio.ServicerContext[Request, Response]
    ) -> AsyncIterator[Response]:
        """Serve one executor for as long as its stream lives."""
        session = await self._dispatcher.open(await _hello(request_iterator))
        reader = asyncio.create_task(self._read(session, request_iterator))
        try:
            async for message in outgoing_messages(session):
                yield message
            if reader.done() and isinstance(error := reader.exception(), DalsegnoError):
                raise error
        finally:
            said_goodbye = reader.done() and not reader.cancelled() and reader.exception() is None
            reader.cancel()
            # The handler of a client that went away is cancelled; the end of its session is recorded all the same.
            await asyncio.shield(self._dispatcher.closed(session, gracefully=said_goodbye and not session.held))

    async def _read(self, session: Session, requests: AsyncIterator[Request]) -> None:
        try:
            async for request in requests:
                await self._dispatcher.receive(session, request)
        finally:
            session.close()


async def _hello(requests: AsyncIterator[Request]) -> executor_service_pb2.Hello:
    async for request in requests:
        if request.WhichOneof("message") != "hello" or len(request.hello.session_key) != 16:
            break
        if request.hello.protocol_version != PROTOCOL_VERSION:
            raise UsageError(
                f"the executor speaks version {request.hello.protocol_version} of the protocol and this planner "
                f"version {PROTOCOL_VERSION}; install the same release of dalsegno on both",
                reason="PROTOCOL_VERSION",
            )
        return request.hello
    raise UsageError(
        "the first message of the stream has to be `hello` with a session key of 16 bytes", reason="NO_HELLO"
    )
