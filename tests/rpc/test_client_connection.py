"""What clients that know several planners see of it when one of them stops."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dalsegno.client.connection import Connection
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest
from tests.rpc.serving import Serving, serving

CLIENTS = 12


@pytest.mark.semantics("7", "An executor or planner that dies loses nothing")
async def test_no_request_fails_while_a_planner_stops(planner: Serving, database: str, tmp_path: Path) -> None:
    """One that comes when it takes no more gets the status CANCELLED, though nobody has cancelled it."""
    over = threading.Event()

    def ask(connection: Connection, answered: threading.Event) -> None:
        try:
            while not over.is_set():
                connection.call(lambda stubs: stubs.executions.List, ExecutionServiceListRequest())
                answered.set()
        finally:
            answered.set()
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as threads:
        async with serving(database, tmp_path) as stopping:
            addresses = f"{stopping.planner.address},{planner.planner.address}"
            answered = [threading.Event() for _ in range(CLIENTS)]
            asking = [threads.submit(ask, Connection(addresses, "default"), one) for one in answered]
            for one in answered:
                await asyncio.to_thread(one.wait)
        over.set()
        ended = await asyncio.gather(*map(asyncio.wrap_future, asking), return_exceptions=True)
    assert ended == [None] * CLIENTS
