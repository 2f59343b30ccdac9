"""Attempts that are to be made later: they become ready when they are due, and not at the next look at the database.

A planner knows the delays that were reported to it, and from each look those that come soon after it. What else there
is, reported to a planner that has ended since, housekeeping finds.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any

import asyncpg
import structlog

from dalsegno_planner.dispatch.background import end
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.store.pool import DATABASE_FAILED
from dalsegno_planner.store.sql import load

_QUERIES = load("dispatch")
_PAUSE_S = 0.05
"""Between two looks, at the least: many that are due one after the other share one."""

log = structlog.get_logger(__name__)


class Retries:
    """Makes tasks ready when they are due.

    Args:
        bus: Is told that there is work.
        horizon: Seconds ahead that a look takes in; beyond them housekeeping has looked meanwhile.
    """

    def __init__(self, bus: Bus, horizon: float) -> None:
        self._bus = bus
        self._horizon = horizon
        self._due_at = math.inf
        self._sooner = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, pool: asyncpg.Pool[Any]) -> asyncio.Task[None]:
        """Start."""
        self._task = asyncio.create_task(self._run(pool), name="retries")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    def due_in(self, seconds: float) -> None:
        """Note that something is due after so long."""
        due_at = asyncio.get_running_loop().time() + seconds
        if due_at < self._due_at:
            self._due_at = due_at
            self._sooner.set()

    async def _run(self, pool: asyncpg.Pool[Any]) -> None:
        while True:
            await self._until_due()
            self._due_at = math.inf
            try:
                async with pool.acquire() as connection:
                    await connection.execute(_QUERIES["release_due"])
                    left = await connection.fetchval(_QUERIES["next_due"], self._horizon)
            except DATABASE_FAILED as error:
                log.warning("retries_delayed", error=str(error))
                continue
            self._bus.work_ready()
            if left is not None:
                self.due_in(max(left, 0.0))
            await asyncio.sleep(_PAUSE_S)

    async def _until_due(self) -> None:
        now = asyncio.get_running_loop().time
        while now() < self._due_at:
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if self._due_at == math.inf else self._due_at):
                    await self._sooner.wait()
