"""Wake-ups between planners, through LISTEN and NOTIFY on a connection of their own.

NOTIFY takes a lock of the whole database through its commit, so it stays out of the commit loop: what changed is
gathered and sent in one statement, at most every few milliseconds, and not at all while no other planner listens.
A poll stands behind it, so a wake-up that is lost costs a second and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from dalsegno_planner.dispatch.background import end
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.store.pool import DATABASE_FAILED, prepare_connection
from dalsegno_planner.store.sql import load

_CHANNEL = "dalsegno_executions"
_GATHER_SECONDS = 0.01
_RECONNECT_SECONDS = 1.0
_ENDED = "ended:"
"""In front of an execution of which nothing may run any more; a planner that does not know this word ignores it."""
_WORK = "work"
"""Said where there may be work that no execution's change tells of."""
_QUERIES = load("dispatch")

_MOST_UNSENT = 100_000
"""What comes on top, while there is no connection, others find by polling."""

log = structlog.get_logger(__name__)


class Notifier:
    """Tells other planners what changed, and wakes this one's waiters when others do.

    Args:
        dsn: The database.
        bus: Wakes this planner's waiters.
        heard: Called with each execution that another planner has changed.
        heard_of_end: Called with each of which another planner says that nothing may run any more.
    """

    def __init__(self, dsn: str, bus: Bus, heard: Callable[[UUID], None], heard_of_end: Callable[[UUID], None]) -> None:
        self._dsn = dsn
        self._bus = bus
        self._heard_of = heard
        self._heard_of_end = heard_of_end
        self._unsent: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Start."""
        self._task = asyncio.create_task(self._run(), name="notifier")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    def announce(self, changed: Sequence[UUID]) -> None:
        """Tell the other planners that these executions have changed."""
        if changed:
            self._say(map(str, changed))

    def announce_ended(self, execution_id: UUID) -> None:
        """Tell the other planners to stop what runs of an execution."""
        self._say([f"{_ENDED}{execution_id}"])

    def announce_work(self) -> None:
        """Tell the other planners to look for work."""
        self._say([_WORK])

    def _say(self, words: Iterable[str]) -> None:
        if len(self._unsent) < _MOST_UNSENT:
            self._unsent.update(words)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                connection = await asyncpg.connect(
                    self._dsn, timeout=10, server_settings={"application_name": "dalsegno-notify"}
                )
                try:
                    await prepare_connection(connection)
                    await connection.add_listener(_CHANNEL, self._heard)
                    await self._send(connection)
                finally:
                    connection.terminate()
            except DATABASE_FAILED as error:
                log.debug("notifier_disconnected", error=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _send(self, connection: asyncpg.Connection[Any]) -> None:
        others, looked = 0, -1e9
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            if loop.time() - looked > 1:
                others, looked = await connection.fetchval(_QUERIES["count_listeners"]) - 1, loop.time()
            words = list(self._unsent)
            if others > 0 and words:
                await connection.execute(_QUERIES["notify"], _CHANNEL, words)
            # What could not be sent is sent on the next connection.
            self._unsent.difference_update(words)

    def _heard(self, connection: object, pid: int, channel: object, payload: object) -> None:
        with suppress(ValueError):
            execution_id = UUID(str(payload).removeprefix(_ENDED))
            self._bus.execution_changed(execution_id)
            if str(payload).startswith(_ENDED):
                self._heard_of_end(execution_id)
            else:
                self._heard_of(execution_id)
        self._bus.work_ready()
