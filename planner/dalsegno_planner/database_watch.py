"""Whether the database is there, told by a connection that does nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg

from dalsegno_planner.dispatch.background import end

_TIMEOUT = 10.0
_GONE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


class DatabaseWatch:
    """Says whenever the database goes and comes back.

    Args:
        dsn: The database.
        interval: Seconds between looks; a connection that is closed is noticed at once.
        told: Awaited with whether the database is there.
    """

    def __init__(self, dsn: str, interval: float, told: Callable[[bool], Awaitable[None]]) -> None:
        self._dsn = dsn
        self._interval = interval
        self._told = told
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start."""
        self._task = asyncio.create_task(self._run(), name="database-watch")

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            with suppress(*_GONE):
                settings = {"application_name": "dalsegno-health"}
                connection = await asyncpg.connect(self._dsn, timeout=_TIMEOUT, server_settings=settings)
                try:
                    await self._told(True)
                    await self._until_gone(connection)
                finally:
                    connection.terminate()
            await self._told(False)
            await asyncio.sleep(self._interval)

    async def _until_gone(self, connection: asyncpg.Connection[Any]) -> None:
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        while not gone.is_set():
            try:
                await asyncio.wait_for(gone.wait(), self._interval)
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=_TIMEOUT)
