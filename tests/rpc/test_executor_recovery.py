"""Executors that come back, planners that die between a commit and its news: nobody waits for ever."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs
from structlog.typing import EventDict

from dalsegno.v1 import executor_service_pb2
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_FAILED, Execution
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, Awaiting
from dalsegno.v1.value_pb2 import Output, Outputs, Payload
from tests.postgres import PostgresServer
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
OUTPUTS = Outputs(outputs=[Output(name="output", payload=Payload(codec="json", inline=b"5"))])


def submit(worker: ScriptedWorker, body: executor_service_pb2.Task, report_id: int | None = None) -> int:
    """Report that a body has submitted its first call."""
    call = executor_service_pb2.Call(number=1, position=1, name="work", invocation_id="work")
    call.definition.module, call.definition.name = "training", "work"
    call.submitted.SetInParent()
    return worker.report(body.token, report_id, call=call)


@contextmanager
def hearing(event: str) -> Iterator[asyncio.Event]:
    """What is set once the planner logs an event."""
    heard = asyncio.Event()

    def listen(_: object, __: str, line: EventDict) -> EventDict:
        if line["event"] == event:
            heard.set()
        return line

    with capture_logs():
        structlog.get_config()["processors"].insert(0, listen)
        yield heard


async def assert_told(host: ScriptedWorker) -> None:
    """The body gets the outcome of its call."""
    (resolved,) = (await host.next("resolved")).calls
    assert (resolved.number, resolved.outputs.outputs[0].payload.inline) == (1, b"5")


async def submitted_body(host: ScriptedWorker) -> executor_service_pb2.Task:
    """Take a body, and submit its first call."""
    await host.hello()
    host.credit(bodies=1)
    body = await host.task()
    assert (await host.ack(submit(host, body))).status == ACK_STATUS_DURABLE
    return body


@pytest.mark.semantics("7", "An executor or planner that dies loses nothing")
async def test_an_outcome_that_came_while_its_body_was_cut_off_is_told_when_it_is_back(planner: Serving) -> None:
    await planner.start(flow_header())
    async with scripted_worker(planner.channel) as host, scripted_worker(planner.channel) as worker:
        body = await submitted_body(host)
        host.vanish()
        await worker.hello()
        worker.credit(steps=1)
        await worker.ack(worker.complete(await worker.task(), b"5"))
        async with scripted_worker(planner.channel, host.key) as back:
            await back.hello(in_hand=[body.token], awaiting=[Awaiting(body=body.token, numbers=[1])])
            await assert_told(back)


async def test_an_outcome_of_which_its_planner_told_nobody_is_found(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, poll_interval=0.1) as planner:
        execution = UUID((await planner.start(flow_header())).id)
        async with scripted_worker(planner.channel) as host:
            body = await submitted_body(host)
            await complete_and_die(connection, execution)
            await assert_told(host)
            assert body.token.epoch == 1


async def test_a_recovered_body_is_told_what_came_of_calls_it_had_submitted_before(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, poll_interval=0.1) as planner:
        execution = UUID((await planner.start(flow_header())).id)
        async with scripted_worker(planner.channel) as host:
            body = await submitted_body(host)
            host.send(returned=executor_service_pb2.Returned(tokens=[body.token]))
            host.credit(bodies=1)
            (recorded,) = (await host.task()).body.recorded.calls
            assert recorded.action == executor_service_pb2.RECORDED_CALL_ACTION_AWAIT
            await complete_and_die(connection, execution)
            await assert_told(host)


async def test_a_call_that_is_submitted_again_after_it_has_ended_is_answered(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    """The acknowledgement was lost with the planner; the call has been run since."""
    async with serving(database, tmp_path, poll_interval=0.1) as planner:
        execution = UUID((await planner.start(flow_header())).id)
        async with scripted_worker(planner.channel) as host:
            body = await submitted_body(host)
            host.vanish()
            await complete_and_die(connection, execution)
            async with scripted_worker(planner.channel, host.key) as back:
                await back.hello(in_hand=[body.token])
                assert (await back.ack(submit(back, body, report_id=1))).status == ACK_STATUS_DURABLE
                await assert_told(back)


async def complete_and_die(connection: Connection, execution: UUID) -> None:
    """Do as a planner that is killed right after its commit: claim and complete call 1, and tell nobody."""
    session = UUID(int=7)
    now = dt.datetime.now(dt.UTC)
    await connection.execute(
        "UPDATE tasks SET session_id = $2, epoch = 1 WHERE execution_id = $1 AND number = 1", execution, session
    )
    result = (0, execution, 1, 1, session, "completed", OUTPUTS.SerializeToString(), None, "", now, now, 0.0, "other")
    durable = await connection.fetchval(
        "SELECT durable FROM dispatch_commit($1::task_result[], '{}', '{}', '{}', '{}', '{}')", [result]
    )
    assert durable == [0]


async def test_what_is_cancelled_through_another_planner_is_stopped(
    planner: Serving, database: str, tmp_path: Path
) -> None:
    async with serving(database, tmp_path, poll_interval=0.1) as other, scripted_worker(other.channel) as worker:
        await cancelled_step(planner, worker)


async def cancelled_step(planner: Serving, worker: ScriptedWorker) -> tuple[Execution, executor_service_pb2.Task]:
    """A step that a new worker has been given, and then been told to stop."""
    execution = await planner.start(pipeline_header(), [step("work")])
    await worker.hello()
    worker.credit(steps=1)
    task = await worker.task()
    await planner.cancel(execution.id)
    assert list((await worker.next("cancel")).tokens) == [task.token]
    return execution, task


async def test_news_of_a_cancel_that_come_after_the_retry_stop_nothing(
    planner: Serving, connection: Connection
) -> None:
    """What a retry has begun is not what was cancelled; stopped, it would stay leased and never end."""
    async with scripted_worker(planner.channel) as worker:
        retried, first = await cancelled_step(planner, worker)
        worker.credit(steps=1)
        await planner.retry(retried.id)
        again = await worker.task()
        assert again.token.execution_id == first.token.execution_id
        await connection.execute("SELECT pg_notify('dalsegno_executions', $1)", f"ended:{retried.id}")
        # What is cancelled after the news shows that they have been heard.
        other = await planner.start(pipeline_header(), [step("work")])
        worker.credit(steps=1)
        task = await worker.task()
        await connection.execute("DELETE FROM tasks WHERE execution_id = $1", UUID(other.id))
        await connection.execute("SELECT pg_notify('dalsegno_executions', $1)", f"ended:{other.id}")
        assert list((await worker.next("cancel")).tokens) == [task.token]


async def test_an_executor_that_nobody_told_that_a_task_is_not_its_any_more_is_told(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    async with (
        serving(database, tmp_path, poll_interval=0.1, heartbeat_interval=0.1) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        await planner.start(pipeline_header(), [step("work")])
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        await connection.execute("DELETE FROM tasks")
        assert list((await worker.next("cancel")).tokens) == [task.token]


async def test_executors_keep_their_leases_over_an_outage_of_the_database(
    postgres: PostgresServer, database: str, connection: Connection, tmp_path: Path
) -> None:
    """Nobody could say that it is alive while the database was away, so nobody is taken for dead at once."""
    name = database.partition("?")[0].rpartition("/")[2]
    async with (
        serving(database, tmp_path, poll_interval=0.1) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        await planner.start(pipeline_header(), [step("work")])
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        with hearing("housekeeping_delayed") as delayed:
            await asyncio.to_thread(postgres.execute, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await connection.execute("UPDATE sessions SET expires_at = clock_timestamp() - interval '1 second'")
            await asyncio.wait_for(delayed.wait(), 60)
        await asyncio.to_thread(postgres.execute, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        # Its end shows that the planner has looked for what has expired.
        hasty = await planner.start(flow_header(timeout=Duration(nanos=1)))
        assert (await planner.end_of(hasty.id)).state == EXECUTION_STATE_FAILED
        worker.vanish()
        async with scripted_worker(planner.channel, worker.key) as back:
            assert list((await back.hello(in_hand=[task.token])).lost) == []
