"""The leases of executors: those that give signs of life keep theirs, and those of the others run out.

On a connection of their own, so that nothing else that is slow or waits for a lock costs an executor its lease.

Signs of life come to one planner alone. So a lease that has run out counts only where this planner has looked all along
for as long as leases last: after an outage of the database, the planner or the machine executors have that long to
say that they are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog

from dalsegno_planner.dispatch.background import end
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.dispatch.sessions import Session, Sessions
from dalsegno_planner.settings import Settings
from dalsegno_planner.store.pool import DATABASE_FAILED
from dalsegno_planner.store.sql import load

_QUERIES = load("dispatch")

log = structlog.get_logger(__name__)


class Leases:
    """Extends and ends leases.

    Args:
        sessions: The executors that are connected here.
        bus: Is told when tasks have gone back.
        connect: Opens a connection for dispatch.
        settings: For how long leases are given.
    """

    def __init__(
        self,
        sessions: Sessions,
        bus: Bus,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        settings: Settings,
    ) -> None:
        self._sessions = sessions
        self._bus = bus
        self._connect = connect
        self._duration = settings.lease_duration
        self._interval = min(settings.poll_interval, settings.heartbeat_interval / 2)
        self._watch = Watch(settings.lease_duration)
        self._alive: set[Session] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Start."""
        self._task = asyncio.create_task(self._run(), name="leases")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    def alive(self, session: Session) -> None:
        """Note a sign of life."""
        self._alive.add(session)

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._connect()
                try:
                    while True:
                        await asyncio.sleep(self._interval)
                        await self._look(connection)
                finally:
                    connection.terminate()
            except ValueError:  # what asyncpg says of arguments that do not fit: a defect
                raise
            except DATABASE_FAILED as error:
                log.warning("leases_not_extended", error=str(error))
                self._watch.interrupt()
            await asyncio.sleep(self._interval)

    async def _look(self, connection: asyncpg.Connection[Any]) -> None:
        await self._extend(connection)
        row = None
        # Its beginning is the time of the look, by the database's clock, which goes on while a machine sleeps. Were
        # this planner to stand still now, what runs out meanwhile does not count.
        async with connection.transaction():
            self._watch.look(await connection.fetchval(_QUERIES["clock"]))
            if self._watch.long_enough:
                row = await connection.fetchrow(_QUERIES["close_sessions"], None)
        if row is not None and row["closed"]:
            log.warning("leases_expired", executors=row["closed"], tasks=row["returned"])
            self._bus.tasks_returned()

    async def _extend(self, connection: asyncpg.Connection[Any]) -> None:
        # What an executor says is not read while there is no room for what it has said before.
        self._alive.update(session for session in self._sessions if session.held_up)
        alive = frozenset(self._alive)
        if not alive:
            return
        ids = [session.id for session in alive]
        generations = [session.generation for session in alive]
        rows = await connection.fetch(_QUERIES["extend_sessions"], ids, generations, self._duration)
        kept = {row["id"] for row in rows}
        self._alive -= alive
        for session in alive:
            if session.id not in kept:
                log.warning("lease_lost", executor=session.executor)
                session.close()


class Watch:
    """For how long somebody has looked without a gap.

    Args:
        lease: Seconds for which it takes to look until it is long enough; half of that is a gap.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._since = self._looked = float("-inf")

    def look(self, now: float) -> None:
        """Note a look, at this second of the database's clock."""
        if not 0 <= now - self._looked <= self._lease / 2:
            self._since = now
        self._looked = now

    def interrupt(self) -> None:
        """Note that it is not known when the last look was."""
        self._looked = float("-inf")

    @property
    def long_enough(self) -> bool:
        """Whether all that are there have had the time to say so."""
        return self._looked - self._since >= self._lease
