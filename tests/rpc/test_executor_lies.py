"""Executors that lie, repeat themselves, reorder and boast: what they say changes nothing, for them or for others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, ACK_STATUS_FENCED, TaskToken
from tests.rpc.scripted_worker import FLOW, ScriptedWorker, scripted_worker, time_out
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step, told

COMPLETED = execution_pb2.EXECUTION_STATE_COMPLETED


async def one_step(planner: Serving, worker: ScriptedWorker) -> tuple[str, executor_service_pb2.Task]:
    """Start a pipeline of one step, and have the worker take it."""
    execution = await planner.start(pipeline_header(), [step("work")])
    await worker.hello()
    worker.credit(steps=1)
    return execution.id, await worker.task()


async def outputs_of(connection: asyncpg.Connection[asyncpg.Record], execution: str) -> bytes:
    row = await connection.fetchrow("SELECT outputs FROM invocations WHERE execution_id = $1", UUID(execution))
    assert row is not None
    return bytes(row["outputs"])


async def statuses(worker: ScriptedWorker, reports: Sequence[int]) -> set[executor_service_pb2.AckStatus.ValueType]:
    """Return what became of reports, in one set."""
    found: dict[int, executor_service_pb2.AckStatus.ValueType] = {}
    while not found.keys() >= set(reports):
        found |= {ack.report_id: ack.status for ack in (await worker.next("acks")).acks}
    return {found[one] for one in reports}


async def test_what_comes_after_a_result_changes_nothing(
    planner: Serving, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with scripted_worker(planner.channel) as worker:
        execution, task = await one_step(planner, worker)
        await worker.ack(worker.complete(task, b'"the one"'))
        late = [worker.complete(task, b'"another"'), worker.fail(task), worker.retry(task, Duration())]
        # The executor may forget them.
        assert await statuses(worker, late) == {ACK_STATUS_DURABLE}
    assert (await planner.get(execution)).state == COMPLETED
    assert b"the one" in await outputs_of(connection, execution)
    assert await connection.fetchval("SELECT count(*) FROM attempts") == 0


async def test_a_result_that_comes_after_its_attempt_has_failed_is_not_counted(
    planner: Serving, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with scripted_worker(planner.channel) as worker:
        execution, task = await one_step(planner, worker)
        await worker.ack(worker.retry(task, Duration()))
        await worker.ack(worker.complete(task, b'"too late"'))
        worker.credit(steps=1)
        await worker.ack(worker.complete(await worker.task(), b'"the one"'))
    assert (await planner.get(execution)).state == COMPLETED
    assert b"the one" in await outputs_of(connection, execution)


async def test_a_body_that_sleeps_through_its_lease_records_nothing_more(
    database: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    async with serving(database, tmp_path, poll_interval=0.1) as planner:
        execution = await planner.start(flow_header())
        async with scripted_worker(planner.channel) as sleeper, scripted_worker(planner.channel) as worker:
            await sleeper.hello()
            sleeper.credit(bodies=1)
            slept_on = await sleeper.task()
            await time_out(connection, sleeper)
            await worker.hello()
            worker.credit(bodies=1)
            body = await worker.task()
            call = executor_service_pb2.Call(number=1, position=1, name="work", invocation_id="work")
            call.completed.SetInParent()
            suspended = executor_service_pb2.BodySuspended(waits=[1])
            late = [
                sleeper.report(slept_on.token, call=call),
                sleeper.report(slept_on.token, suspended=suspended),
                sleeper.report(slept_on.token, returned=executor_service_pb2.BodyReturned()),
            ]
            assert await statuses(sleeper, late) == {ACK_STATUS_FENCED}
            assert await connection.fetchval("SELECT count(*) FROM invocations") == 0
            returned = executor_service_pb2.BodyReturned()
            assert (await worker.ack(worker.report(body.token, returned=returned))).status == ACK_STATUS_DURABLE
        assert (await planner.get(execution.id)).state == COMPLETED


async def test_who_gives_back_what_another_holds_takes_nothing_from_it(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker, scripted_worker(planner.channel) as liar:
        _, task = await one_step(planner, worker)
        await liar.hello()
        liar.credit(steps=1)
        liar.send(returned=executor_service_pb2.Returned(tokens=[task.token]))
        await liar.ack(liar.complete(task))  # what it said before has been taken in by then
        assert liar.count("tasks") == 0
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_who_claims_to_hold_what_it_was_never_given_is_told_that_it_is_lost(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker, scripted_worker(planner.channel) as liar:
        _, task = await one_step(planner, worker)
        welcome = await liar.hello(in_hand=[task.token])
        assert list(welcome.lost) == [task.token]
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_signs_of_life_keep_the_tasks_of_who_gives_them_and_of_nobody_else(
    database: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    settings = {"poll_interval": 0.05, "lease_duration": 1.0, "heartbeat_interval": 0.1}
    async with (
        serving(database, tmp_path, **settings) as planner,
        scripted_worker(planner.channel) as silent,
        scripted_worker(planner.channel) as lively,
    ):
        _, task = await one_step(planner, silent)
        await lively.hello()
        lively.credit(steps=1)
        # Beating for somebody else's task does not keep it.
        given = asyncio.ensure_future(lively.task())
        while not given.done():
            lively.send(heartbeat=executor_service_pb2.Heartbeat(running=[task.token]))
            await asyncio.wait([given], timeout=0.05)
        again = given.result()
        assert again.token.epoch == task.token.epoch + 1
        assert await connection.fetchval("SELECT NOT running FROM tasks")
        assert (await silent.ack(silent.complete(task))).status == ACK_STATUS_FENCED
        assert (await lively.ack(lively.complete(again))).status == ACK_STATUS_DURABLE


async def test_who_boasts_of_more_slots_than_there_can_be_keeps_nobody_from_work(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as boaster, scripted_worker(planner.channel) as worker:
        await boaster.hello(definitions=[FLOW])
        for _ in range(2):
            boaster.credit(steps=2**32 - 1, bodies=2**32 - 1)
        await planner.start(flow_header())
        await boaster.task()
        _, task = await one_step(planner, worker)
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


@pytest.mark.parametrize(
    "token",
    [
        TaskToken(),
        TaskToken(execution_id=b"e" * 15, number=1, epoch=1),
        TaskToken(execution_id=b"e" * 16, number=2**31),
    ],
    ids=["empty", "short", "beyond"],
)
async def test_a_token_that_cannot_be_one_ends_the_stream_that_it_came_on(planner: Serving, token: TaskToken) -> None:
    async with scripted_worker(planner.channel) as liar, scripted_worker(planner.channel) as worker:
        execution, task = await one_step(planner, worker)
        await liar.hello()
        liar.report(token, completed=executor_service_pb2.StepCompleted())
        error = told(await liar.next("end"))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE
    assert (await planner.get(execution)).state == COMPLETED
