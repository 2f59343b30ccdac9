"""Composes dispatch: sessions, the commit loop, and what has to happen now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from dalsegno.v1 import executor_service_pb2
from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.background import Background
from dalsegno_planner.dispatch.batch import Reported
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.dispatch.delivery import Delivery
from dalsegno_planner.dispatch.housekeeping import Housekeeping
from dalsegno_planner.dispatch.lanes import CommitLoops
from dalsegno_planner.dispatch.leases import Leases
from dalsegno_planner.dispatch.logs import LogWriter
from dalsegno_planner.dispatch.lost_leases import stop_lost
from dalsegno_planner.dispatch.notify import Notifier
from dalsegno_planner.dispatch.outcomes import Outcomes
from dalsegno_planner.dispatch.retention import Retention
from dalsegno_planner.dispatch.retries import Retries
from dalsegno_planner.dispatch.sessions import (
    Held,
    Message,
    Session,
    Sessions,
    Token,
    definition_rows,
    routes_of,
    uuid_of,
)
from dalsegno_planner.dispatch.tasks import ClaimedTask
from dalsegno_planner.dispatch.unused_objects import UnusedObjects
from dalsegno_planner.settings import Settings
from dalsegno_planner.store.definitions import Definitions
from dalsegno_planner.store.objects import Objects
from dalsegno_planner.store.pool import DATABASE_FAILED, SERVERS_KEEPALIVE, open_pool, prepare_connection
from dalsegno_planner.store.sql import load
from dalsegno_planner.times import duration

PROTOCOL_VERSION = 1

_QUERIES = load("dispatch")
DISPATCH_SETTINGS = {
    # Fresh tables and plans chosen anew gave 2 to 32 ms a commit from run to run; these are steady.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    # Joins are made in the order in which they are written: what was reported first, then look-ups by whole keys.
    "join_collapse_limit": "1",
    "jit": "off",
    "application_name": "dalsegno-dispatch",
    # A planner that stands still keeps nobody else from what it has locked.
    "idle_in_transaction_session_timeout": "30s",
    **SERVERS_KEEPALIVE,
}

log = structlog.get_logger(__name__)


class Dispatcher:
    """Gives ready work to the executors that are connected here, and records what they report."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.settings = settings
        self.sessions = Sessions()
        self._bus = bus
        self._definitions = Definitions()
        self._commit_loop = CommitLoops(self._connect, self.sessions, self)
        self._background = Background()
        self._delivery = Delivery(
            self.sessions,
            settings.accept_within,
            lambda: self._opened_pool.acquire(),
            self._background,
        )
        self._outcomes = Outcomes(self.sessions, self._delivery.deliver_resolved, settings.poll_interval)
        self._housekeeping = Housekeeping(self.sessions, bus, self._commit_loop, self._outcomes, settings)
        self._leases = Leases(self.sessions, bus, self._connect, settings)
        self._retries = Retries(bus, settings.poll_interval)
        self._log_writer = LogWriter()
        self._retention = (
            Retention(timedelta(days=settings.retention_days)) if settings.retention_days is not None else None
        )
        self._unused_objects = UnusedObjects(Objects(settings.object_store))
        self._notifier = Notifier(settings.database_url, bus, self._changed_elsewhere, self._stop_held)
        self._pool: asyncpg.Pool[Any] | None = None
        self.broken = asyncio.Event()
        """Set once a part of it has ended with an error that nobody foresaw: it does not work any more."""
        bus.on_work(self._work_ready)
        bus.on_new_work(self._notifier.announce_work)
        bus.on_cancel(self._cancelled)
        bus.on_return(self.slots_freed)

    async def start(self) -> None:
        """Start dispatching."""
        self._pool = await open_pool(
            self.settings.database_url,
            max_size=self.settings.dispatch_pool_size,
            application_name="dalsegno-dispatch",
        )
        for loop in (
            *self._commit_loop.start(),
            self._leases.start(),
            self._log_writer.start(self._pool),
            self._housekeeping.start(self._pool),
            self._retries.start(self._pool),
            self._unused_objects.start(self._pool),
            self._notifier.start(),
            *([self._retention.start(self._pool)] if self._retention is not None else []),
        ):
            loop.add_done_callback(self._loop_ended)

    async def stop(self) -> None:
        """End all streams, so that executors turn to another planner, and stop. Nothing that was reported is lost."""
        await self._leases.stop()
        await self._housekeeping.stop()
        await self._retries.stop()
        await self._unused_objects.stop()
        if self._retention is not None:
            await self._retention.stop()
        await self._notifier.stop()
        await self._log_writer.stop()
        await self._commit_loop.stop()
        for session in self.sessions:
            session.close()
        self._background.cancel()
        if self._pool is not None:
            await self._pool.close()

    # What executors say.

    async def open(self, hello: executor_service_pb2.Hello) -> Session:
        """Open the session that `hello` asks for, and welcome the executor."""
        session_id = uuid_of(hello.session_key)
        project = hello.project or "default"
        routes = routes_of(hello.definitions, project, pinned_only=hello.pinned_only)
        in_hand = [Token.of(token) for token in hello.in_hand]
        async with self._opened_pool.acquire() as connection, connection.transaction():
            await self._definitions.record(connection, project, definition_rows(hello.definitions, project))
            row = await connection.fetchrow(
                _QUERIES["open_session"], session_id, hello.executor, project, list(routes),
                self.settings.lease_duration, [token.of_session(session_id) for token in in_hand],
            )  # fmt: skip
        assert row is not None
        session = Session(session_id, hello.executor, project, hello.pinned_only, row["generation"], routes)
        session.acks_with_tasks = hello.acks_with_tasks
        lost = {Token(token["execution_id"], token["number"], token["epoch"]) for token in row["lost"] or ()}
        for token in in_hand:
            if token not in lost:
                session.held[token.execution_id, token.number] = Held(token.epoch)
        session.send(Message(welcome=self._welcome(lost)))
        self.sessions.add(session)
        for waiting in hello.awaiting:
            session.awaits(Token.of(waiting.body), waiting.numbers, look_at=0.0)
        self._look_for_outcomes(session, session.awaiting)
        self.slots_freed()  # what it does not name any more has gone back
        log.info("executor_connected", executor=session.executor, project=project, routes=len(routes))
        return session

    async def receive(self, session: Session, message: executor_service_pb2.ExecutorServiceWorkRequest) -> None:
        """Take in one message of a session."""
        match message.WhichOneof("message"):
            case "reports":
                # Both before anything is waited for, so that they come into one commit.
                if message.reports.HasField("credit"):
                    self._add_credit(session, message.reports.credit)
                await self._report(session, message.reports.reports)
            case "credit":
                self._add_credit(session, message.credit)
            case "accepted":
                for token in message.accepted.tokens:
                    session.unaccepted.pop(Token.of(token), None)
            case "heartbeat":
                self._leases.alive(session)
                self._housekeeping.begun(session, map(Token.of, message.heartbeat.running))
                self._housekeeping.progressed(session, message.heartbeat.progress)
            case "log_lines":
                session.lines_stored = self._log_writer.add(message.log_lines.lines)
            case "announce":
                await self._announce(session, message.announce)
            case "returned":
                self._commit_loop.give_back(session, [Token.of(token) for token in message.returned.tokens])
            case _:
                log.warning("message_ignored", executor=session.executor, kind=message.WhichOneof("message"))

    async def _report(self, session: Session, reports: Sequence[executor_service_pb2.Report]) -> None:
        session.held_up = True
        try:
            if session.lines_stored is not None:
                await self._log_writer.wait(session.lines_stored)
                session.lines_stored = None
            reported = [Reported.of(session, report) for report in reports]
            self._note_submitted(reported)
            await self._commit_loop.report(reported)
        finally:
            session.held_up = False

    async def closed(self, session: Session, *, gracefully: bool) -> None:
        """Note the end of a stream. An executor that said goodbye has nothing more; any other may come back."""
        self.sessions.remove(session)
        log.info("executor_disconnected", executor=session.executor, gracefully=gracefully)
        if gracefully and self._pool is not None and not self._pool.is_closing():
            async with self._pool.acquire() as connection:
                closed = await connection.fetchrow(_QUERIES["close_stream"], session.id, session.generation)
            if closed is not None and closed["returned"]:
                self.slots_freed()

    async def _announce(self, session: Session, announce: executor_service_pb2.Announce) -> None:
        routes = routes_of(announce.definitions, session.project, pinned_only=session.pinned_only)
        async with self._opened_pool.acquire() as connection, connection.transaction():
            rows = definition_rows(announce.definitions, session.project)
            await self._definitions.record(connection, session.project, rows)
            await connection.execute(_QUERIES["add_routes"], list(routes), session.id)
        session.routes |= routes
        self._work_ready()

    def _add_credit(self, session: Session, credit: executor_service_pb2.Credit) -> None:
        session.add_credit(credit)
        self._commit_loop.wake()

    def _note_submitted(self, reported: Sequence[Reported]) -> None:
        look_at = asyncio.get_running_loop().time() + self.settings.poll_interval
        for one in reported:
            if one.kind == "call" and one.report.call.HasField("submitted"):
                one.session.awaits(one.token, [one.report.call.number], look_at)

    def _welcome(self, lost: Iterable[Token]) -> executor_service_pb2.Welcome:
        return executor_service_pb2.Welcome(
            protocol_version=PROTOCOL_VERSION,
            heartbeat_interval=duration(self.settings.heartbeat_interval),
            lease_duration=duration(self.settings.lease_duration),
            accept_within=duration(self.settings.accept_within),
            cancel_grace=duration(self.settings.cancel_grace),
            lost=[token.message() for token in lost],
            object_store_url=self.settings.object_store,
            inline_limit=self.settings.inline_limit,
            payload_limit=self.settings.payload_limit,
            credit_with_reports=True,
            credit_instead=True,
        )

    # What commits bring about.

    def committed(
        self, claimed: Sequence[ClaimedTask], resolved: Sequence[Any], changed: Sequence[UUID], moved: Sequence[UUID]
    ) -> None:
        """Deliver claimed tasks and resolved calls, and wake who waits for changed executions."""
        self._delivery.deliver_tasks(claimed)
        self._delivery.deliver_resolved(resolved)
        for execution_id in changed:
            self._bus.execution_changed(execution_id, steps_only=True)
        for execution_id in moved:
            self._bus.execution_changed(execution_id)
        self._notifier.announce([*changed, *moved])
        # Credit that one lane has asked for and not used is for the other one again.
        self._commit_loop.wake()

    def slots_freed(self) -> None:
        """Look for work in all lanes and planners: what a limit holds back may begin, and what came back be taken."""
        self._work_ready()
        self._notifier.announce_work()

    def due_in(self, seconds: float) -> None:
        """Have what is to be tried again made ready after so long."""
        self._retries.due_in(seconds)

    def connection_lost(self) -> None:
        """End all streams: executors reconnect, and what they do not hold goes to others."""
        for session in self.sessions:
            session.close()

    def _changed_elsewhere(self, execution_id: UUID) -> None:
        """Deliver outcomes that another planner has recorded to the body that waits for them here."""
        for session in self.sessions:
            self._look_for_outcomes(session, [execution_id])

    def _look_for_outcomes(self, session: Session, executions: Iterable[UUID]) -> None:
        if self._outcomes.hurry(session, executions):
            self._background.start(self._deliver_outcomes())

    async def _deliver_outcomes(self) -> None:
        async with self._opened_pool.acquire() as connection:
            await self._outcomes.look(connection)

    # What others ask for.

    def _work_ready(self, lane: Lane | None = None) -> None:
        lanes = tuple(Lane) if lane is None else (lane,)
        for session in self.sessions:
            session.look_again(lanes)
        self._commit_loop.wake()

    def _cancelled(self, execution_id: UUID) -> None:
        self._stop_held(execution_id)
        self._work_ready()
        self._notifier.announce_ended(execution_id)

    def _stop_held(self, execution_id: UUID) -> None:
        if any(execution_id == holder for session in self.sessions for holder, _ in session.held):
            self._background.start(self._stop_lost(execution_id))

    async def _stop_lost(self, execution_id: UUID) -> None:
        try:
            async with self._opened_pool.acquire() as connection:
                await stop_lost(connection, self.sessions, "the execution has ended", execution_id)
        except DATABASE_FAILED as error:  # housekeeping stops it once the database is there
            log.warning("stop_delayed", execution=str(execution_id), error=str(error))

    def _loop_ended(self, loop: asyncio.Task[None]) -> None:
        if not loop.cancelled() and (error := loop.exception()) is not None:
            log.critical("dispatch_broken", loop=loop.get_name(), exc_info=error)
            self.broken.set()

    @property
    def _opened_pool(self) -> asyncpg.Pool[Any]:
        assert self._pool is not None, "the dispatcher has not been started"
        return self._pool

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self.settings.database_url, server_settings=DISPATCH_SETTINGS, timeout=10
        )
        await prepare_connection(connection)
        return connection
