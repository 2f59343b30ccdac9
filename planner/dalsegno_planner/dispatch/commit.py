"""The commit loop of one lane: everything that streams report while a commit is under way goes into the next one.

Batches grow under load by themselves; alone, a report waits for nothing. One round trip records what was reported,
makes ready what that unblocks, and claims work for the sessions that have credit. What follows from a commit is told
to executors while the next one is under way.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from dalsegno.v1 import executor_service_pb2
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.batch import Batch, Inbox, Reported
from dalsegno_planner.dispatch.composites import BodyEnd, Claim, TaskResult
from dalsegno_planner.dispatch.sessions import Asked, Message, Session, Sessions, Token
from dalsegno_planner.dispatch.tasks import ClaimedTask
from dalsegno_planner.store.pool import DATABASE_LOST
from dalsegno_planner.store.sql import load

_NOBODY = UUID(int=0)
_QUERIES = load("dispatch")
_TRY_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# The database's own troubles (a full disk, a shutdown, a server that is read-only) pass or are mended; they are no
# fault of what was reported.
_TROUBLE = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
)
_NO_FAULT_OF_THE_BATCH: tuple[type[Exception], ...] = (*DATABASE_LOST, *_TROUBLE)
_PASSING: tuple[type[Exception], ...] = (*_NO_FAULT_OF_THE_BATCH, *_TRY_AGAIN)
_SECONDS_TO_STOP = 5
_DURABLE = executor_service_pb2.ACK_STATUS_DURABLE

log = structlog.get_logger(__name__)


class Outcome(Protocol):
    """What a commit returns, for those who have to be told."""

    def committed(
        self, claimed: Sequence[ClaimedTask], resolved: Sequence[Any], changed: Sequence[UUID], moved: Sequence[UUID]
    ) -> None:
        """Deliver claimed tasks and resolved calls, and wake who waits for executions.

        Of `changed` executions an invocation has, `moved` ones have another state themselves.
        """

    def slots_freed(self) -> None:
        """Have work looked for in all lanes and planners."""

    def due_in(self, seconds: float) -> None:
        """Have what is to be tried again made ready after so long."""

    def connection_lost(self) -> None:
        """Forget what cannot be known any more: whether the last claim was made."""


class CommitLoop:
    """Owns the connection through which one lane's work is recorded and claimed.

    Args:
        lane: The lane.
        connect: Opens a connection.
        sessions: The executors that are connected here.
        outcome: Is told what commits bring about.
        quantum: Says how many results, and tasks of each kind for an executor, the next commit carries at the most.
    """

    def __init__(
        self,
        lane: Lane,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        sessions: Sessions,
        outcome: Outcome,
        quantum: Callable[[], int],
    ) -> None:
        self._lane = lane
        self._quantum = quantum
        self._connect = connect
        self._sessions = sessions
        self._outcome = outcome
        self._connection: asyncpg.Connection[Any] | None = None
        self._inbox = Inbox()
        self._returned: list[tuple[Session, Token]] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        # What follows from the last commit is told; an error in that is one of the loop.
        self._telling: asyncio.Task[None] | None = None
        # The executions that had the last turn when steps, and when bodies, were claimed.
        self._last_step = self._last_body = _NOBODY
        self._promoting = False

    def start(self) -> asyncio.Task[None]:
        """Start the loop, and return it: it ends by being stopped, or with an error that nobody foresaw."""
        self._task = asyncio.create_task(self._run(), name=f"commit-loop-{self._lane.name.lower()}")
        return self._task

    async def stop(self) -> None:
        """Finish the commit that is under way and stop."""
        if self._task is not None:
            self._stopping = True
            self._wake.set()
            # What it has ended with, if it has, is told to whoever has started it.
            await asyncio.wait([self._task], timeout=_SECONDS_TO_STOP)
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._telling is not None:
            await asyncio.wait([self._telling])
        if self._connection is not None:
            await self._connection.close(timeout=5)

    async def report(self, reports: Sequence[Reported]) -> None:
        """Take reports in. Waits while the inbox is full, which slows the stream that they come from."""
        self._inbox.add(reports)
        self._wake.set()
        if self._inbox.fullness > 1:
            self._room.clear()
            await self._room.wait()

    def give_back(self, session: Session, tokens: Sequence[Token]) -> None:
        """Hand tasks back unfinished."""
        self._returned.extend((session, token) for token in tokens)
        self._wake.set()

    async def commit_apart(self, connection: Any, results: Sequence[TaskResult], ends: Sequence[BodyEnd]) -> None:
        """Commit on another connection what no session reports; tokens without a session are those of ready tasks."""
        row = await connection.fetchrow(_QUERIES["commit"], results, [], [], ends, [], [])
        self._outcome.committed((), row["resolved"] or (), row["changed"] or (), row["moved"] or ())

    async def go_on(self, connection: Any) -> bool:
        """Make ready, or mark as not reached, a part of what follows from ends; return whether there was any left."""
        if await connection.fetchval(_QUERIES["promote"]) is not None:
            return True
        part = await connection.fetchrow(_QUERIES["mark_unreached"])
        self._outcome.committed((), (), part["changed"] or (), part["moved"] or ())
        return part["marked"] is not None

    def wake(self) -> None:
        """Look for work to claim, if any session has credit for it."""
        if self._wanted():
            self._wake.set()

    async def _run(self) -> None:
        # A stop lets the commit that is under way finish, so that nothing is claimed and forgotten.
        while not self._stopping:
            if (batch := self._next_batch()) or self._wanted():
                await self._commit(batch)
            elif not self._promoting:
                await self._wake.wait()
                self._wake.clear()
            # What a commit leaves to be made ready goes on between commits, a part at a time.
            if self._promoting:
                await self._promote()

    def _wanted(self) -> bool:
        return any(session.wants_work(self._lane) for session in self._sessions)

    async def _promote(self) -> None:
        """Go on with what follows from ends. Where that fails, housekeeping of any planner does."""
        self._promoting = False
        if self._connection is not None:
            try:
                self._promoting = await self.go_on(self._connection)
            except _PASSING as error:
                log.warning("promotion_delayed", error=str(error))
        self._look_again()

    def _next_batch(self) -> Batch:
        batch = Batch.of(self._inbox.take(self._quantum()), self._returned)
        self._returned = []
        if self._inbox.fullness < 0.5:
            self._room.set()
        return batch

    async def _commit(self, batch: Batch, *, claim: bool = True) -> None:
        if batch.may_free_work():
            for session in self._sessions:
                session.steps.look_again([self._lane])
        wanting = [session for session in self._sessions if session.wants_work(self._lane)] if claim else []
        most = self._quantum()
        asked = [session.ask(self._lane, most) for session in wanting]
        if not (batch or asked):
            return  # Another lane has taken the credit since this commit was thought of.
        try:
            row = await self._execute(batch, [self._claim(one) for one in asked])
        except asyncpg.PostgresError as error:
            self._settle(asked, ())
            if batch and asked:  # what was reported is not refused for the sake of what was to be claimed
                await self._commit(batch, claim=False)
            else:
                await self._isolate(batch, error)
            return
        claimed = self._settle(asked, row["claimed"] or ())
        if row["requeued"]:
            self._look_again()
            self._wake.set()
        self._promoting = self._promoting or row["promoting"]
        if batch.soonest < math.inf:
            self._outcome.due_in(batch.soonest)
        frees_slots = batch.frees_slots or (row["requeued"] and batch.gives_back)
        if self._telling is not None:
            await self._telling
            self._telling = None
        telling = self._tell(batch, row, claimed)
        if self._inbox:  # it runs while this loop waits for the answer to the next commit
            self._telling = asyncio.create_task(telling)
        else:
            await telling
        if frees_slots:
            self._outcome.slots_freed()

    async def _tell(self, batch: Batch, row: Any, claimed: Sequence[ClaimedTask]) -> None:
        _acknowledge(batch, set(row["durable"] or ()))
        self._outcome.committed(claimed, row["resolved"] or (), row["changed"] or (), row["moved"] or ())

    def _look_again(self, lanes: Collection[Lane] = ()) -> None:
        for session in self._sessions:
            session.look_again(lanes or [self._lane])

    def _claim(self, asked: Asked) -> Claim:
        session = asked.session
        lowest, highest = self._lane.ranks
        return Claim(session.id, session.generation, asked.steps.left, asked.bodies.left, list(session.routes),
                     lowest, highest, self._last_step, self._last_body)  # fmt: skip

    def _settle(self, asked: Sequence[Asked], rows: Sequence[Any]) -> list[ClaimedTask]:
        """Take what was claimed from the credit, give back the rest, and remember whose turn it was."""
        credit = {one.session.id: one for one in asked}
        tasks = []
        for row in rows:
            filled = credit[row["session_id"]]
            reserved = filled.fill(is_body=row["number"] == BODY)
            tasks.append(ClaimedTask.of(filled.session, row, reserved=reserved))
        for one in asked:
            one.settle()
        self._last_step = _last_turn(self._last_step, (t.token.execution_id for t in tasks if not t.is_body))
        self._last_body = _last_turn(self._last_body, (t.token.execution_id for t in tasks if t.is_body))
        return tasks

    async def _execute(self, batch: Batch, claims: list[Claim]) -> Any:
        # Nearly all commits succeed at once, and one that carries little costs less than what counts attempts.
        with suppress(*_PASSING):
            return await self._execute_once(batch, claims)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_PASSING),
            wait=wait_random_exponential(multiplier=0.05, max=2),
        ):
            with attempt:
                return await self._execute_once(batch, claims)
        raise AssertionError("unreachable")

    async def _execute_once(self, batch: Batch, claims: list[Claim]) -> Any:
        """Commit a batch. Where the connection is lost, the claims are taken back: they are not made a second time."""
        try:
            if self._connection is None:
                self._connection = await self._connect()
            return await self._connection.fetchrow(
                _QUERIES["commit"], batch.results, batch.calls, batch.attempts, batch.ends, batch.returned, claims
            )
        except _NO_FAULT_OF_THE_BATCH as error:
            log.warning("database_unreachable", error=str(error), reports=len(batch.items))
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
                # Whether the commit was made is unknown: reports are known again by their tokens, but tasks may have
                # been claimed that nobody was told of. Executors reconnect and say what they hold.
                self._outcome.connection_lost()
                claims.clear()
            raise

    async def _isolate(self, batch: Batch, error: asyncpg.PostgresError) -> None:
        """Commit the halves of a batch that cannot be committed; refuse the one report that remains."""
        if len(batch.items) > 1 or (batch.items and batch.given_back):
            for part in batch.parts():
                await self._commit(part, claim=False)
        elif batch.items:
            await self._refuse(batch.items[0], error)
        elif batch.given_back:
            log.error("tasks_not_given_back", error=str(error), tasks=len(batch.given_back))
            # They have forgotten them, and would keep them: what they do not name when they come back goes to others.
            for session in {session for session, _ in batch.given_back}:
                session.close()
        else:
            log.error("nothing_claimed", error=str(error))

    async def _refuse(self, reported: Reported, error: asyncpg.PostgresError) -> None:
        """Record a failure in the place of a report that cannot be recorded; refuse it where that cannot be either."""
        log.error("report_rejected", error=str(error), execution=str(reported.token.execution_id))
        substitute = reported.as_backend_failure(f"the planner could not record the report: {error}")
        if substitute is not None:
            await self._commit(Batch.of([substitute]), claim=False)
            if not reported.ends_task:
                # The body has ended with its call, and may wait for what comes of it.
                reported.session.stop([reported.token], "a call of it could not be recorded")
            return
        _reject(reported, f"the database refused it: {error}")
        self.give_back(reported.session, [reported.token])
        reported.session.ended(reported.token)


def _last_turn(last: UUID, served: Iterable[UUID]) -> UUID:
    """Return which of the executions that were served had the last turn: they go on from `last`, and wrap around."""
    return max(served, key=lambda execution_id: (execution_id <= last, execution_id), default=last)


def _acknowledge(batch: Batch, durable: set[int]) -> None:
    """Tell each session which of its reports are durable, and which came from a lease that was lost."""
    messages: defaultdict[Session, Message] = defaultdict(Message)
    for item, reported in enumerate(batch.items):
        acks = messages[reported.session].acks.acks
        if batch.superseded.get(item, item) in durable:
            acks.add(report_id=reported.report.report_id, status=_DURABLE)
        else:
            acks.add(
                report_id=reported.report.report_id,
                status=executor_service_pb2.ACK_STATUS_FENCED,
                reason="the task was given to another executor, or its execution has ended",
            )
        if reported.ends_task:
            reported.session.ended(reported.token)
    for session, message in messages.items():
        session.send(message)


def _reject(reported: Reported, reason: str) -> None:
    ack = executor_service_pb2.Ack(
        report_id=reported.report.report_id, status=executor_service_pb2.ACK_STATUS_REJECTED, reason=reason
    )
    reported.session.send(Message(acks=executor_service_pb2.Acks(acks=[ack])))
