"""The stream to a planner that does not do its part."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from grpc import aio

from dalsegno.v1.executor_service_pb2 import ExecutorServiceWorkRequest, ExecutorServiceWorkResponse, Welcome
from dalsegno.v1.executor_service_pb2_grpc import ExecutorServiceServicer, add_ExecutorServiceServicer_to_server
from dalsegno_executor.protocol import Identity, Session, State
from dalsegno_executor.session import Stream
from tests.names import NameServer

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Deaf(ExecutorServiceServicer):
    """A planner that welcomes executors, and hears nothing any more.

    Attributes:
        welcomed: How many.
    """

    def __init__(self) -> None:
        self.welcomed = 0

    async def Work(  # noqa: N802 - named as the RPC is
        self, requests: AsyncIterator[ExecutorServiceWorkRequest], context: Any
    ) -> AsyncIterator[ExecutorServiceWorkResponse]:
        self.welcomed += 1
        yield ExecutorServiceWorkResponse(welcome=Welcome())
        await asyncio.Event().wait()


@asynccontextmanager
async def listening(address: str, planner: Deaf) -> AsyncIterator[int]:
    """Serve; the port is chosen where the address has none."""
    server = aio.server()
    add_ExecutorServiceServicer_to_server(planner, server)
    port = server.add_insecure_port(address)
    await server.start()
    yield port
    await server.stop(None)


async def come_and_go(address: str) -> None:
    """Connect as an executor, and give the stream up once it is welcome."""
    session = Session(Identity(b"k" * 16, "worker", "default", pinned_only=False))
    welcomed = asyncio.Event()
    stream = Stream(address, session, lambda events: welcomed.set(), lambda: None, lambda text: None)
    keeping = asyncio.create_task(stream.keep())
    await asyncio.wait_for(welcomed.wait(), 20)
    stream.leave()
    keeping.cancel()
    await asyncio.wait([keeping], timeout=20)
    assert keeping.cancelled()
    assert session.state is State.CLOSED


async def test_a_stream_that_is_given_up_while_its_planner_does_not_let_go_ends() -> None:
    async with listening("127.0.0.1:0", Deaf()) as port:
        await come_and_go(f"127.0.0.1:{port}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this machine has no 127.0.0.2")
async def test_executors_are_spread_over_the_addresses_of_a_name() -> None:
    """Where each took the first that answers, all would be at one planner."""
    planners = {host: Deaf() for host in HOSTS}
    async with AsyncExitStack() as stack:
        port = 0
        for host, planner in planners.items():
            port = await stack.enter_async_context(listening(f"{host}:{port}", planner))
        named = stack.enter_context(NameServer(HOSTS)).target(port)
        while not all(planner.welcomed for planner in planners.values()):
            await come_and_go(named)


async def test_who_finds_no_planner_asks_again_after_longer_and_longer_pauses_that_no_two_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def pauses() -> list[float]:
        session = Session(Identity(b"k" * 16, "worker", "default", pinned_only=False))
        found, enough = [], asyncio.Event()

        async def note(seconds: float) -> None:
            found.append(seconds)
            if len(found) == 12:
                enough.set()
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", note)
        stream = Stream("unix:/nowhere", session, lambda events: None, lambda: None, lambda text: None)
        keeping = asyncio.create_task(stream.keep())
        await asyncio.wait_for(enough.wait(), 20)
        keeping.cancel()
        await asyncio.wait([keeping])
        return found

    sleep = asyncio.sleep
    one, other = await pauses(), await pauses()
    assert all(
        0.05 <= seconds <= min(2.0, 0.1 * 2**before) for before, seconds in enumerate(one + other) if before < 12
    )
    assert max(one) > 0.5
    assert not set(one) & set(other)
