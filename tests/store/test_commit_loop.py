"""The commit loop on a database of its own: batches that cannot be committed as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_DURABLE,
    ACK_STATUS_FENCED,
    ACK_STATUS_REJECTED,
    BodyReturned,
    Report,
    StepCompleted,
    TaskFailed,
)
from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.batch import Reported
from dalsegno_planner.dispatch.commit import CommitLoop
from dalsegno_planner.dispatch.sessions import Session, Sessions, Token
from dalsegno_planner.dispatch.tasks import ClaimedTask
from tests.store.ledger import ROUTES, WAITS_FOR_THIS, Held, Ledger, connect

BACKEND = execution_pb2.FAILURE_ORIGIN_BACKEND
QUANTUM = 1_000
UNSTORABLE = "no \0 in text"


class Told:
    """Who has to be told of commits."""

    def __init__(self) -> None:
        self.claimed: asyncio.Queue[Any] = asyncio.Queue()
        self.moved: asyncio.Queue[UUID] = asyncio.Queue()
        self.lost = 0
        self.freed = 0

    def committed(
        self, claimed: Sequence[ClaimedTask], resolved: Sequence[Any], changed: Sequence[UUID], moved: Sequence[UUID]
    ) -> None:
        for task in claimed:
            self.claimed.put_nowait(task.row)
        for execution_id in moved:
            self.moved.put_nowait(execution_id)

    def due_in(self, seconds: float) -> None:
        pass

    def slots_freed(self) -> None:
        self.freed += 1

    def connection_lost(self) -> None:
        self.lost += 1


class Bench:
    """A loop that has not started, one session, and the tasks that it holds.

    Attributes:
        statements: What the loop has asked the database to do.
    """

    def __init__(self, ledger: Ledger, session: Session, held: list[Held], dsn: str) -> None:
        self.ledger, self.session, self.held, self.told = ledger, session, held, Told()
        self.sessions = Sessions()
        self.sessions.add(session)
        self.statements: list[str] = []
        self._dsn = dsn
        self.loop = CommitLoop(Lane.LIVE, self._connect, self.sessions, self.told, lambda: QUANTUM)

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection = await connect(self._dsn)
        connection.add_query_logger(lambda record: self.statements.append(record.query))
        return connection

    @property
    def commits(self) -> list[str]:
        """Of these, all but what a connection asks once: what the types are that it is given."""
        return [asked for asked in self.statements if "pg_catalog" not in asked and "'jit'" not in asked]

    def token(self, place: int) -> Token:
        held = self.held[place]
        return Token(held.execution_id, held.number, held.epoch)

    async def report(self, report_id: int, place: int, **kind: Any) -> None:
        report = Report(report_id=report_id, token=self.token(place).message(), **kind)
        await self.loop.report([Reported.of(self.session, report)])

    async def acks(self, count: int) -> dict[int, executor_service_pb2.AckStatus.ValueType]:
        """Wait for this many acknowledgements."""
        found: dict[int, executor_service_pb2.AckStatus.ValueType] = {}
        while len(found) < count:
            message = await asyncio.wait_for(self.session.outgoing.get(), 10)
            assert message is not None
            found |= {ack.report_id: ack.status for ack in message.acks.acks}
        return found

    async def states(self) -> dict[int, str]:
        rows = await self.ledger.connection.fetch("SELECT number, state FROM invocations ORDER BY number")
        return {row["number"]: row["state"] for row in rows}


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    """Four independent steps in the hands of one session."""
    ledger = await Ledger.open(database)
    await ledger.pipeline({1: [], 2: [], 3: [], 4: []})
    session_id = await ledger.session()
    held = sorted(await ledger.claim(session_id), key=lambda one: one.number)
    session = Session(session_id, "worker", "default", False, await ledger.generation(session_id), set(ROUTES))
    made = Bench(ledger, session, held, database)
    yield made
    await made.loop.stop()
    await ledger.connection.close()


async def test_what_comes_together_is_one_statement_however_much_it_is(bench: Bench) -> None:
    """Results, the end of a body, what is handed back, and a claim of what follows from them."""
    await bench.ledger.bulk(300)
    flow = await bench.ledger.flow()
    bench.held += await bench.ledger.claim(bench.session.id, steps=300)
    assert len(bench.held) == 305
    body = next(place for place, held in enumerate(bench.held) if held.execution_id == flow)
    results = [place for place in range(2, 305) if place != body]
    for place in results:
        await bench.report(place, place, completed=StepCompleted())
    await bench.report(body, body, returned=BodyReturned())
    bench.loop.give_back(bench.session, [bench.token(0), bench.token(1)])
    bench.session.steps.offer(1, 0)
    bench.loop.start()
    assert set((await bench.acks(303)).values()) == {ACK_STATUS_DURABLE}
    assert (await asyncio.wait_for(bench.told.claimed.get(), 10))["number"] in (1, 2)
    assert len(bench.commits) == 1


async def test_what_is_handed_back_with_a_report_that_cannot_be_recorded_goes_back(bench: Bench) -> None:
    await bench.report(1, 0, completed=StepCompleted(code_digest=UNSTORABLE))
    await bench.report(2, 1, completed=StepCompleted())
    bench.loop.give_back(bench.session, [bench.token(2), bench.token(3)])
    bench.session.steps.offer(9, 0)
    bench.loop.start()
    assert await bench.acks(2) == {1: ACK_STATUS_DURABLE, 2: ACK_STATUS_DURABLE}, "the first as a failure"
    again = {(await asyncio.wait_for(bench.told.claimed.get(), 10))["number"] for _ in range(2)}
    assert again == {3, 4}
    assert await bench.states() == {1: "failed", 2: "completed", 3: "pending", 4: "pending"}


async def test_a_failure_that_cannot_be_recorded_is_refused_and_its_task_is_given_again(bench: Bench) -> None:
    failure = execution_pb2.Failure(origin=BACKEND, message="no disk")
    await bench.report(1, 0, failed=TaskFailed(failure=failure, code_digest=UNSTORABLE))
    await bench.report(2, 1, completed=StepCompleted())
    bench.session.steps.offer(1, 0)
    bench.loop.start()
    assert await bench.acks(2) == {1: ACK_STATUS_REJECTED, 2: ACK_STATUS_DURABLE}
    claimed = await asyncio.wait_for(bench.told.claimed.get(), 10)
    assert (claimed["number"], claimed["epoch"]) == (1, bench.held[0].epoch + 1)


async def test_a_number_that_cannot_be_sent_to_postgres_is_a_report_that_cannot_be_recorded(bench: Bench) -> None:
    """And no lost connection: that would be tried again for ever, and all others with it."""
    flow = await bench.ledger.flow()
    bench.loop.start()
    bench.session.bodies.offer(1, 0)
    bench.loop.wake()
    body = await asyncio.wait_for(bench.told.claimed.get(), 10)
    token = Token(flow, 0, body["epoch"])
    call = executor_service_pb2.Call(number=2**32 - 1, position=1, name="s", invocation_id="s")
    call.completed.SetInParent()
    await bench.loop.report([Reported.of(bench.session, Report(report_id=1, token=token.message(), call=call))])
    await bench.report(2, 1, completed=StepCompleted())
    await bench.acks(1)
    assert await asyncio.wait_for(bench.told.moved.get(), 10) == flow
    assert await bench.ledger.state(flow) == "failed"
    assert bench.told.lost == 0


def call(number: int, action: str) -> executor_service_pb2.Call:
    made = executor_service_pb2.Call(number=number, position=number, name="s", invocation_id=f"s_{number}")
    getattr(made, action).SetInParent()
    return made


async def test_a_late_call_of_a_lost_body_does_not_stand_in_for_that_of_the_body_that_took_over(bench: Bench) -> None:
    """Also where both come in one batch, whichever is first."""
    flow = await bench.ledger.flow()
    asleep = Session(await bench.ledger.session(), "asleep", "default", False, 1, set(ROUTES))
    (lost,) = (await bench.ledger.commit(claims=[(asleep.id, 0, 1)])).claimed
    await bench.ledger.connection.fetch("SELECT close_sessions($1)", [asleep.id])
    (held,) = (await bench.ledger.commit(claims=[(bench.session.id, 0, 1)])).claimed
    for report_id, first in ((1, True), (2, False)):
        late = Report(report_id=9, token=Token(flow, 0, lost.epoch).message(), call=call(report_id, "completed"))
        valid = Report(
            report_id=report_id, token=Token(flow, 0, held.epoch).message(), call=call(report_id, "completed")
        )
        both = [Reported.of(asleep, late), Reported.of(bench.session, valid)]
        await bench.loop.report(both if first else both[::-1])
    bench.loop.start()
    assert await bench.acks(2) == {1: ACK_STATUS_DURABLE, 2: ACK_STATUS_DURABLE}
    late_acks = await asyncio.wait_for(asleep.outgoing.get(), 10)
    assert late_acks is not None
    assert {ack.status for ack in late_acks.acks.acks} == {ACK_STATUS_FENCED}


async def test_who_lies_about_another_ones_task_does_not_fence_its_holder(bench: Bench) -> None:
    liar = Session(await bench.ledger.session(), "liar", "default", False, 1, set(ROUTES))
    lie = Report(report_id=9, token=bench.token(0).message(), completed=StepCompleted())
    await bench.loop.report([Reported.of(liar, lie)])
    await bench.report(1, 0, completed=StepCompleted())
    bench.loop.start()
    assert await bench.acks(1) == {1: ACK_STATUS_DURABLE}
    assert (await bench.states())[1] == "completed"


async def test_what_came_of_a_call_counts_however_often_it_is_said_to_begin(bench: Bench) -> None:
    flow = await bench.ledger.flow()
    (held,) = (await bench.ledger.commit(claims=[(bench.session.id, 0, 1)])).claimed
    token = Token(flow, 0, held.epoch).message()
    for report_id, action in enumerate(("started", "started", "completed", "started", "completed"), start=1):
        report = Report(report_id=report_id, token=token, call=call(1, action))
        await bench.loop.report([Reported.of(bench.session, report)])
    bench.loop.start()
    assert await bench.acks(5) == dict.fromkeys(range(1, 6), ACK_STATUS_DURABLE)
    sql = "SELECT state FROM invocations WHERE execution_id = $1"
    assert await bench.ledger.connection.fetchval(sql, flow) == "completed"


@pytest.mark.parametrize("kind", ["completed", "attempt_failed", "returned", "suspended", "call"])
async def test_a_report_of_another_kind_than_its_token_is_for_changes_nothing(bench: Bench, kind: str) -> None:
    flow = await bench.ledger.flow()
    (body,) = (await bench.ledger.commit(claims=[(bench.session.id, 0, 1)])).claimed
    about_body = kind in ("completed", "attempt_failed")
    token = Token(flow, 0, body.epoch) if about_body else Token(flow, 1, body.epoch)
    report = Report(report_id=1, token=token.message())
    getattr(report, kind).SetInParent()
    await bench.loop.report([Reported.of(bench.session, report)])
    bench.loop.start()
    assert await bench.acks(1) == {1: ACK_STATUS_FENCED}
    task = "SELECT epoch FROM tasks WHERE execution_id = $1 AND number = 0 AND session_id = $2"
    assert await bench.ledger.connection.fetchval(task, flow, bench.session.id) == body.epoch
    assert await bench.ledger.connection.fetchval("SELECT state FROM executions WHERE id = $1", flow) == "running"


async def test_times_out_of_all_range_are_left_out(bench: Bench) -> None:
    beyond = StepCompleted()
    beyond.started_at.seconds = beyond.finished_at.seconds = 2**60
    await bench.report(1, 0, completed=beyond)
    bench.loop.start()
    assert await bench.acks(1) == {1: ACK_STATUS_DURABLE}
    assert (await bench.states())[1] == "completed"


async def test_a_loop_that_ends_with_an_error_says_so(bench: Bench) -> None:
    """Its planner ends then: others, or its next start, take over."""

    async def fail() -> Any:
        raise RuntimeError("nobody foresaw this")

    broken = CommitLoop(Lane.LIVE, fail, bench.sessions, bench.told, lambda: QUANTUM)
    task = broken.start()
    bench.session.steps.offer(1, 0)
    broken.wake()
    with pytest.raises(RuntimeError, match="nobody foresaw this"):
        await asyncio.wait_for(task, 10)


async def test_an_error_in_what_follows_from_a_commit_is_one_of_the_loop(bench: Bench) -> None:
    class Mute(Told):
        def committed(self, *_: Any) -> None:
            raise RuntimeError("nobody can be told")

    bench.loop = CommitLoop(Lane.LIVE, bench._connect, bench.sessions, Mute(), lambda: QUANTUM)
    task = bench.loop.start()
    await bench.report(1, 0, completed=StepCompleted())
    await bench.acks(1)
    await bench.report(2, 1, completed=StepCompleted())
    with pytest.raises(RuntimeError, match="nobody can be told"):
        await asyncio.wait_for(task, 10)


COMMITS = "SELECT array_agg(number ORDER BY number) AS numbers FROM invocations GROUP BY xmin::text ORDER BY 1"


async def test_all_that_is_reported_while_a_commit_is_under_way_goes_into_the_next_one(
    bench: Bench, database: str
) -> None:
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT FROM tasks WHERE number = 1 FOR UPDATE")
        bench.loop.start()
        await bench.report(1, 0, completed=StepCompleted())
        while not await other.fetchval(WAITS_FOR_THIS):
            pass
        for place in (1, 2, 3):
            await bench.report(place + 1, place, completed=StepCompleted())
    await bench.acks(4)
    assert [row["numbers"] for row in await other.fetch(COMMITS)] == [[1], [2, 3, 4]]
    await other.close()


async def test_executions_have_their_turns_from_one_commit_to_the_next(bench: Bench) -> None:
    executions = sorted([await bench.ledger.bulk(10) for _ in range(3)])
    bench.loop.start()
    turns = []
    for _ in range(2 * len(executions)):
        bench.session.steps.offer(1, 0)
        bench.loop.wake()
        turns.append((await asyncio.wait_for(bench.told.claimed.get(), 10))["execution_id"])
    assert turns == 2 * executions


async def test_what_was_ended_to_break_a_deadlock_is_committed_again(bench: Bench, database: str) -> None:
    """And not taken for something that cannot be recorded."""
    other = await asyncpg.connect(database, server_settings={"deadlock_timeout": "1min"})  # so that ours is ended
    async with other.transaction():
        await other.execute("SELECT FROM executions FOR UPDATE")
        bench.loop.start()
        await bench.report(1, 0, completed=StepCompleted())
        while not await other.fetchval(WAITS_FOR_THIS):
            pass
        await other.execute("SELECT FROM tasks WHERE number = 1 FOR UPDATE")
    assert await bench.acks(1) == {1: ACK_STATUS_DURABLE}
    assert (await bench.states())[1] == "completed"
    assert len(bench.commits) == 2
    await other.close()


async def test_nothing_waits_for_a_clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the event loop time stands still: no timer is ever over."""
    now = asyncio.get_running_loop().time()
    bench.loop.start()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    await bench.report(1, 0, completed=StepCompleted())
    await bench.acks(1)
    bench.session.steps.offer(9, 0)
    for place in (1, 2, 3):
        await bench.report(place + 1, place, completed=StepCompleted())
    await bench.acks(3)
    monkeypatch.undo()
    assert set((await bench.states()).values()) == {"completed"}


async def test_what_follows_from_a_wide_step_becomes_ready_between_commits(bench: Bench) -> None:
    """Nobody reports anything more: the loop goes on by itself."""
    await bench.ledger.fan(2_500)
    bench.held = await bench.ledger.claim(bench.session.id, steps=1)
    await bench.report(1, 0, completed=StepCompleted())
    bench.session.steps.offer(2_500, 0)
    bench.loop.start()
    numbers = {(await asyncio.wait_for(bench.told.claimed.get(), 20))["number"] for _ in range(2_500)}
    assert numbers == set(range(2, 2_502))


async def test_what_is_reported_waits_where_there_is_no_room_for_it(bench: Bench) -> None:
    """So that its stream is read no further, and memory stays bounded however slow the database is."""
    megabyte = StepCompleted(code_digest=1_000_000 * "x")
    for number in range(64):
        await bench.report(number, 0, completed=megabyte)
    waiting = [asyncio.create_task(bench.report(64 + number, 0, completed=megabyte)) for number in range(4)]
    finished, _ = await asyncio.wait(waiting, timeout=0.1)
    assert not [task for task in waiting[3:] if task in finished]
    bench.loop.start()
    await asyncio.gather(*waiting)
    assert len(await bench.acks(68)) == 68
