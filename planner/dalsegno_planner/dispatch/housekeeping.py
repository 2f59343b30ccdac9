"""What happens now and then: unaccepted tasks go back, waits and executions time out.

Tasks that are lost with their executors again and again are given up. Executors are told of tasks that they still run
and that are not theirs any more, wherever that was decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
import structlog

from dalsegno.v1 import executor_service_pb2
from dalsegno_planner.dispatch.background import end
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.dispatch.lanes import CommitLoops
from dalsegno_planner.dispatch.lost_leases import stop_lost
from dalsegno_planner.dispatch.lost_tasks import rows_of_lost
from dalsegno_planner.dispatch.outcomes import Outcomes
from dalsegno_planner.dispatch.sessions import Session, Sessions, Token
from dalsegno_planner.settings import Settings
from dalsegno_planner.store import executions
from dalsegno_planner.store.pool import DATABASE_FAILED
from dalsegno_planner.store.sql import load
from dalsegno_planner.store.waits import expire_waits

_QUERIES = load("dispatch")

log = structlog.get_logger(__name__)


class Housekeeping:
    """Runs beside the commit loop, on connections of the dispatcher's pool."""

    def __init__(
        self, sessions: Sessions, bus: Bus, commit_loop: CommitLoops, outcomes: Outcomes, settings: Settings
    ) -> None:
        self._sessions = sessions
        self._bus = bus
        self._commit_loop = commit_loop
        self._outcomes = outcomes
        self._settings = settings
        self._running: set[tuple[Session, Token]] = set()
        # Of each call the latest.
        self._progress: dict[tuple[Session, Token, int], bytes] = {}
        self._looked_for_lost = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, pool: asyncpg.Pool[Any]) -> asyncio.Task[None]:
        """Start."""
        self._task = asyncio.create_task(self._run(pool), name="housekeeping")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)

    def begun(self, session: Session, running: Iterable[Token]) -> None:
        """Note what runs."""
        self._running.update((session, token) for token in running)

    def progressed(self, session: Session, progress: Iterable[executor_service_pb2.StepProgress]) -> None:
        """Note how far calls have come."""
        for said in progress:
            self._progress[session, Token.of(said.token), said.number] = said.progress.SerializeToString()

    async def _run(self, pool: asyncpg.Pool[Any]) -> None:
        interval = min(self._settings.poll_interval, self._settings.heartbeat_interval / 2)
        now = asyncio.get_running_loop().time
        while True:
            asleep = now()
            await asyncio.sleep(interval)
            if now() - asleep < 2 * interval:  # else this process has stood still, and has not read what was said
                self._return_unaccepted()
            try:
                async with pool.acquire() as connection:
                    await self._mark_running(connection)
                    await self._record_progress(connection)
                    await self._expire(connection)
                    await connection.execute(_QUERIES["release_due"])
                    await self._promote(connection)
                    await self._stop_lost(connection)
                    await self._outcomes.look(connection)
            except (
                ValueError
            ):  # what asyncpg says of arguments that do not fit: a defect, and no trouble of the database
                raise
            except DATABASE_FAILED as error:
                log.warning("housekeeping_delayed", error=str(error))
            # Behind the wake-ups: retries that are due, and work that another planner made ready.
            self._bus.work_ready()

    def _return_unaccepted(self) -> None:
        now = asyncio.get_running_loop().time()
        for session in self._sessions:
            overdue = [] if session.held_up else session.overdue(now)
            if overdue:
                log.warning("tasks_not_accepted", executor=session.executor, tasks=len(overdue))
                self._commit_loop.give_back(session, overdue)
                session.stop(overdue, "it was not accepted in time")

    async def _mark_running(self, connection: Any) -> None:
        running, self._running = self._running, set()
        if running:
            tokens = [token.of_session(session.id) for session, token in running]
            for row in await connection.fetch(_QUERIES["mark_running"], tokens):
                self._bus.execution_changed(row["execution_id"])

    async def _record_progress(self, connection: Any) -> None:
        progress, self._progress = self._progress, {}
        if progress:
            tokens = [token.of_session(session.id) for session, token, _ in progress]
            numbers = [number for _, _, number in progress]
            for row in await connection.fetch(_QUERIES["record_progress"], tokens, numbers, list(progress.values())):
                self._bus.execution_changed(row["execution_id"], steps_only=True)

    async def _stop_lost(self, connection: Any) -> None:
        """Have executors stop what is not theirs any more: another planner has ended the execution, or it failed."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_for_lost < self._settings.heartbeat_interval:
            return
        self._looked_for_lost = now
        await stop_lost(connection, self._sessions, "it is not this executor's any more")

    async def _expire(self, connection: Any) -> None:
        await self._end_lost(connection)
        for execution_id in await expire_waits(connection):
            self._bus.execution_changed(execution_id)
        for execution_id in await executions.time_out(connection):
            log.info("execution_timed_out", execution=str(execution_id))
            self._bus.cancelled(execution_id)
            self._bus.execution_changed(execution_id)

    async def _promote(self, connection: Any) -> None:
        """Go on with what planners have left that are no more."""
        while await self._commit_loop.go_on(connection):
            self._bus.work_ready()

    async def _end_lost(self, connection: Any) -> None:
        lost = await connection.fetch(_QUERIES["lost_tasks"])
        if lost:
            log.warning("tasks_given_up", tasks=len(lost))
            await self._commit_loop.commit_apart(connection, *rows_of_lost(lost))
