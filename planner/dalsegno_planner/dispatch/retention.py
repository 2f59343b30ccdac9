"""Lets go of executions that ended long ago, beside everything else and more slowly."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from dalsegno_planner.dispatch.background import end
from dalsegno_planner.store import retention
from dalsegno_planner.store.pool import DATABASE_FAILED, Pool, in_transaction

_EVERY = 60.0
"""Seconds between looks."""
_EXECUTIONS_AT_ONCE = 100
_ROWS_AT_ONCE = 2_000
_PAUSE = 0.05
"""Seconds between two batches: live work has the database in between."""

log = structlog.get_logger(__name__)


class Retention:
    """Deletes executions that ended longer ago than they are kept.

    Args:
        kept: For how long.
    """

    def __init__(self, kept: timedelta) -> None:
        self._kept = kept
        self._task: asyncio.Task[None] | None = None

    def start(self, pool: Pool) -> asyncio.Task[None]:
        """Start, and return what runs: it ends by being stopped, or with an error that nobody foresaw."""
        self._task = asyncio.create_task(self._run(pool), name="retention")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    async def clear(self, pool: Pool) -> int:
        """Delete all whose time has come, once; return how many executions those were."""
        async with pool.acquire() as connection:
            before = await retention.before(connection, self._kept)
        forgotten, last = 0, retention.FIRST
        while page := await self._page(pool, before, last):
            last = page[-1]
            for execution_id in page:
                forgotten += await self._forget(pool, execution_id, before)
            await self._sweep(pool)
        await self._sweep(pool)
        return forgotten

    async def _run(self, pool: Pool) -> None:
        while True:
            try:
                if forgotten := await self.clear(pool):
                    log.info("executions_deleted", executions=forgotten, kept=str(self._kept))
            except DATABASE_FAILED as error:
                log.warning("retention_delayed", error=str(error))
            await asyncio.sleep(_EVERY)

    async def _page(self, pool: Pool, before: datetime, after: UUID) -> list[UUID]:
        async with pool.acquire() as connection:
            return list(await retention.expired(connection, before, after, _EXECUTIONS_AT_ONCE))

    async def _forget(self, pool: Pool, execution_id: UUID, before: datetime) -> bool:
        return await in_transaction(pool, lambda connection: retention.forget(connection, execution_id, before))

    async def _sweep(self, pool: Pool) -> None:
        swept = _ROWS_AT_ONCE
        while swept:
            swept = await in_transaction(pool, lambda connection: retention.sweep(connection, _ROWS_AT_ONCE))
            await asyncio.sleep(_PAUSE if swept else 0)
