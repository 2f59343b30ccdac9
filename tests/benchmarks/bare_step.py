"""The least that a step of a chain can cost: a message there, a durable commit, a message back, and nothing of ours.

``python -m tests.benchmarks.bare_step DATABASE_URL SOCKET`` is the side that commits; it says ``ready``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import grpc.aio
import uvloop

from dalsegno.grpc_polling import LIGHTER_POLLER
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.processes import ROOT
from tests.benchmarks.samples import Samples
from tests.benchmarks.session import Session

_METHOD = "/bare.Steps/Run"
_STEPS = 1_000
_TABLE = "CREATE TABLE IF NOT EXISTS bare_steps (note text NOT NULL)"
_INSERT = "INSERT INTO bare_steps (note) VALUES ($1)"
_MESSAGE = bytes(200)


def bare_step(session: Session) -> Iterator[Figure]:
    """A message, a commit and a message, over the transport and the Postgres that the engine uses."""
    with tempfile.TemporaryDirectory(prefix="dalsegno-bare-") as folder:
        socket = str(Path(folder) / "socket")
        side = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.bare_step", session.engine.database_url, socket],
            cwd=ROOT,
            env=dict([LIGHTER_POLLER]) | os.environ,  # it polls as the planner does
            stdout=subprocess.PIPE,
        )
        try:
            assert side.stdout is not None
            side.stdout.readline()
            taken = uvloop.run(_chain(socket))
        finally:
            side.kill()
            side.wait()
    yield Figure("a message, a durable commit, a message: the least of a step", Unit.MILLISECONDS, Samples.of(taken))


async def _chain(socket: str) -> list[float]:
    taken = []
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stream: Any = channel.stream_stream(_METHOD)()
        for _ in range(_STEPS):
            begin = perf_counter()
            await stream.write(_MESSAGE)
            await stream.read()
            taken.append((perf_counter() - begin) * 1e3)
        await stream.done_writing()
    return taken


class _Committing(grpc.GenericRpcHandler):
    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def commit_each(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for message in messages:
                await self._connection.fetch(_INSERT, "a step")
                yield message

        return grpc.stream_stream_rpc_method_handler(commit_each)


async def _serve(database_url: str, socket: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(_TABLE)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Committing(connection),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
