"""Removes what deleted executions had in the object store and nothing else has.

What other databases have is not known here. So each says in the store that it has something there, and nothing is
removed from one that several have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from dalsegno.errors import BackendError
from dalsegno_planner.dispatch.background import end
from dalsegno_planner.store import released_objects
from dalsegno_planner.store.objects import Objects
from dalsegno_planner.store.pool import DATABASE_FAILED, Pool, in_transaction

_EVERY = 60.0
"""Seconds between looks."""
_AT_ONCE = 32
RELEASED_FOR = timedelta(days=1)
"""Longer than it takes from the writing of an object until the database knows who has it."""

_PASSING: tuple[type[Exception], ...] = (*DATABASE_FAILED, BackendError)

log = structlog.get_logger(__name__)


class UnusedObjects:
    """Removes objects a while after the last execution that has them was deleted.

    Args:
        objects: The store.
        released_for: How long a while is.
    """

    def __init__(self, objects: Objects, released_for: timedelta = RELEASED_FOR) -> None:
        self._objects = objects
        self._released_for = released_for
        self._database: UUID | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, pool: Pool) -> asyncio.Task[None]:
        """Start, and return what runs: it ends by being stopped, or with an error that nobody foresaw."""
        self._task = asyncio.create_task(self._run(pool), name="unused-objects")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    async def clear(self, pool: Pool) -> int:
        """Remove all whose time has come, once; return how many objects those were."""
        if self._database is None:
            async with pool.acquire() as connection:
                database = await released_objects.this_database(connection)
            await self._objects.register(database)
            self._database = database
        removed, looked_at = 0, _AT_ONCE
        while looked_at == _AT_ONCE:
            looked_at, gone = await in_transaction(
                pool,
                lambda connection: released_objects.settle(connection, self._released_for, _AT_ONCE, self._remove),
            )
            removed += gone
        return removed

    async def _remove(self, keys: Collection[str], before: datetime) -> Collection[str]:
        others = await self._objects.databases() - {str(self._database)}
        if others:
            log.warning("objects_of_several_databases", store=self._objects.url, others=sorted(others), kept=len(keys))
            return keys
        return await self._objects.remove(keys, before)

    async def _run(self, pool: Pool) -> None:
        while True:
            try:
                if removed := await self.clear(pool):
                    log.info("objects_removed", objects=removed)
            except _PASSING as error:
                log.warning("objects_not_removed", error=str(error))
            await asyncio.sleep(_EVERY)
