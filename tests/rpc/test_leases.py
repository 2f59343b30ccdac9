"""Who keeps its lease: executors that live, whatever else is slow, stands still or was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
from google.protobuf.duration_pb2 import Duration

from dalsegno.v1.execution_pb2 import EXECUTION_STATE_FAILED, LANE_BULK
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, Heartbeat, StepCompleted, Task, TaskToken
from dalsegno_planner.dispatch.leases import Watch
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
LEASE = 1.0
BEAT = 0.1
SHORT = {"poll_interval": 0.1, "heartbeat_interval": 0.2, "lease_duration": LEASE}
LONG = {"poll_interval": 600.0, "heartbeat_interval": 600.0, "lease_duration": 1500.0}


async def one_step(planner: Serving, worker: ScriptedWorker) -> Task:
    await planner.start(pipeline_header(), [step("work")])
    await worker.hello()
    worker.credit(steps=1)
    return await worker.task()


@asynccontextmanager
async def at_work(database: str, folder: Path) -> AsyncIterator[tuple[Serving, ScriptedWorker, Task]]:
    """A planner with short leases, and an executor that has a task in hand."""
    async with serving(database, folder, **SHORT) as planner, scripted_worker(planner.channel) as worker:
        yield planner, worker, await one_step(planner, worker)


async def housekeeping(planner: Serving) -> None:
    """Wait until a planner has done what it does now and then."""
    hasty = await planner.start(flow_header(timeout=Duration(nanos=1)))
    assert (await planner.end_of(hasty.id)).state == EXECUTION_STATE_FAILED


@asynccontextmanager
async def beating(worker: ScriptedWorker, task: Task) -> AsyncIterator[None]:
    """Give signs of life, unless everything stands still."""

    async def beat() -> None:
        while True:
            worker.send(heartbeat=Heartbeat(running=[task.token]))
            await asyncio.sleep(BEAT)

    signs = asyncio.create_task(beat())
    try:
        yield
    finally:
        signs.cancel()


def flood(worker: ScriptedWorker, task: Task) -> None:
    """Report a task, and behind it more than a planner has room for."""
    worker.complete(task)
    for number in range(100):
        token = TaskToken(execution_id=task.token.execution_id, number=2, epoch=number)
        worker.report(token, completed=StepCompleted(code_digest="much" * 250_000))


async def passing(connection: Connection, leases: float) -> None:
    """Wait for as long as so many leases last, by the database's clock."""
    await connection.execute("SELECT pg_sleep($1)", leases * LEASE)


@asynccontextmanager
async def locked_tasks(database: str) -> AsyncIterator[None]:
    """Somebody has locked what executors have in hand."""
    locking: Connection = await asyncpg.connect(database)
    try:
        async with locking.transaction():
            await locking.execute("SELECT FROM tasks FOR UPDATE")
            yield
    finally:
        await locking.close()


async def test_a_row_that_somebody_has_locked_costs_no_executor_its_lease(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    async with at_work(database, tmp_path) as (planner, worker, task):
        async with beating(worker, task), locked_tasks(database):
            await passing(connection, leases=3)
        await housekeeping(planner)
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_a_planner_that_has_stood_still_gives_executors_the_time_of_a_lease(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    async with at_work(database, tmp_path) as (planner, worker, task):
        async with beating(worker, task):
            await passing(connection, leases=2)
            time.sleep(2 * LEASE)  # noqa: ASYNC251 - that all stands still is the point
            await housekeeping(planner)
            await passing(connection, leases=1)
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_so_does_one_that_has_just_started(database: str, connection: Connection, tmp_path: Path) -> None:
    """All may have been away for longer than a lease lasts."""
    async with serving(database, tmp_path) as first, scripted_worker(first.channel) as worker:
        task = await one_step(first, worker)
        key = worker.key
    await connection.execute("UPDATE sessions SET expires_at = clock_timestamp() - interval '1 hour'")
    async with serving(database, tmp_path, poll_interval=0.1) as second:
        await housekeeping(second)
        async with scripted_worker(second.channel, key) as back:
            assert list((await back.hello(in_hand=[task.token])).lost) == []


async def test_what_is_not_accepted_while_a_planner_stands_still_stays_where_it_is(
    database: str, tmp_path: Path
) -> None:
    """That it was accepted is said, and has not been read."""
    async with (
        serving(database, tmp_path, poll_interval=0.1, accept_within=0.5) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        await planner.start(pipeline_header(), [step("work")])
        await worker.hello()
        worker.credit(steps=1)
        (task,) = (await worker.next("tasks")).tasks
        worker.accept(task)
        time.sleep(1.0)  # noqa: ASYNC251 - that all stands still is the point
        await housekeeping(planner)
        assert worker.count("cancel") == 0
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_who_has_reported_more_than_there_is_room_for_keeps_its_lease(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    """Its signs of life are behind its reports, and those are not read while the database takes none."""
    async with (
        serving(database, tmp_path, **{**SHORT, "lease_duration": 4 * LEASE}) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        task = await one_step(planner, worker)
        await planner.start(pipeline_header(), [step("work")])
        worker.credit(steps=1)
        other = await worker.task()
        async with AsyncExitStack() as lasting:
            async with locked_tasks(database):
                flood(worker, task)
                await lasting.enter_async_context(beating(worker, task))
                await passing(connection, leases=6)
            assert (await worker.ack(worker.complete(other))).status == ACK_STATUS_DURABLE


async def test_offers_behind_reports_that_there_is_no_room_for_are_not_taken(database: str, tmp_path: Path) -> None:
    """A database that takes no reports slows what is given out, too."""
    async with (
        serving(database, tmp_path, **LONG) as planner,
        scripted_worker(planner.channel) as worker,
        scripted_worker(planner.channel) as neighbour,
    ):
        task = await one_step(planner, worker)
        await neighbour.hello()
        async with locked_tasks(database):
            flood(worker, task)
            worker.credit(steps=1)
            await planner.start(pipeline_header(lane=LANE_BULK), [step(f"work_{number}") for number in range(30)])
            for _ in range(20):
                neighbour.credit(steps=1)
                await neighbour.ack(neighbour.complete(await neighbour.task()))
            assert worker.count("tasks") == 0
        await worker.task()


async def test_who_has_come_back_elsewhere_is_given_nothing_where_it_was_before(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    """That planner stood still, and has not noticed: neither that the lease ran out, nor that the stream has ended."""
    async with (
        serving(database, tmp_path, **LONG) as before,
        serving(database, tmp_path, **LONG) as elsewhere,
        scripted_worker(before.channel) as gone,
        scripted_worker(before.channel) as neighbour,
    ):
        task = await one_step(before, gone)
        gone.credit(steps=1)
        await gone.ack(gone.complete(task))
        await connection.execute("SELECT close_sessions($1)", [UUID(bytes=gone.key)])
        async with scripted_worker(elsewhere.channel, gone.key) as back:
            await back.hello()
            await neighbour.hello()
            neighbour.credit(steps=1)
            execution = await before.start(pipeline_header(), [step("work")])
            assert (await neighbour.task()).token.execution_id == UUID(execution.id).bytes


async def test_a_stream_is_ended_whose_executor_has_another_one(database: str, tmp_path: Path) -> None:
    """What it says counts for nothing any more, and is no sign of life of the executor."""
    async with (
        serving(database, tmp_path, **SHORT) as planner,
        serving(database, tmp_path) as elsewhere,
        scripted_worker(planner.channel) as old,
    ):
        await old.hello()
        async with scripted_worker(elsewhere.channel, old.key) as new:
            await new.hello()
            old.send(heartbeat=Heartbeat())
            await old.next("end")


def test_a_watch_begins_anew_after_a_gap() -> None:
    watch = Watch(lease=10.0)
    looks = [(100, False), (104, False), (109, False), (110, True), (115, True)]
    looks += [(121, False), (126, False), (131, True)]  # six seconds of ten are a gap
    looks += [(90, False), (95, False), (100, True)]  # a clock that was set back
    for now, long_enough in looks:
        watch.look(now)
        assert watch.long_enough is long_enough, now
    watch.interrupt()
    watch.look(101)
    assert not watch.long_enough
