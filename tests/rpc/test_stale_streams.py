"""No task stays with an executor that was not told of it or does not have it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias
from uuid import UUID

import asyncpg

from dalsegno.v1.execution_pb2 import EXECUTION_STATE_COMPLETED, EXECUTION_STATE_FAILED
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, Call, Credit, Reports, Returned
from tests.rpc.scripted_worker import scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, step
from tests.rpc.test_executor_recovery import hearing, submitted_body
from tests.rpc.test_leases import one_step

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def without(connection: Connection, table: str) -> AsyncIterator[None]:
    """What reads or writes a table fails."""
    await connection.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    try:
        yield
    finally:
        await connection.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


@asynccontextmanager
async def refusing(connection: Connection, condition: str) -> AsyncIterator[None]:
    """The database refuses some changes of tasks."""
    await connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a defect'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON tasks FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse();
        """)
    try:
        yield
    finally:
        await connection.execute("DROP FUNCTION refuse CASCADE")


async def test_an_executor_to_which_a_body_could_not_be_sent_begins_anew(
    planner: Serving, connection: Connection
) -> None:
    """It has offered room for the body, and does not know that the offer was taken."""
    await planner.start(flow_header())
    async with scripted_worker(planner.channel) as host:
        body = await submitted_body(host)
        with hearing("body_not_delivered") as failed:
            async with without(connection, "lineage"):
                host.send(returned=Returned(tokens=[body.token]))
                host.credit(bodies=1)
                await asyncio.wait_for(failed.wait(), 20)
        await host.next("end")
        async with scripted_worker(planner.channel, host.key) as back:
            await back.hello()
            back.credit(bodies=1)
            assert (await back.task()).token.epoch == body.token.epoch + 2


async def test_what_could_not_be_given_back_goes_back_when_its_executor_comes_again(
    planner: Serving, connection: Connection
) -> None:
    """The executor has forgotten it: it would be kept for as long as that gives signs of life."""
    async with scripted_worker(planner.channel) as worker:
        task = await one_step(planner, worker)
        async with refusing(connection, "new.session_id IS NULL"):
            worker.send(returned=Returned(tokens=[task.token]))
            await worker.next("end")
        async with scripted_worker(planner.channel, worker.key) as back:
            await back.hello()
            back.credit(steps=1)
            assert (await back.task()).token.execution_id == task.token.execution_id


async def test_a_report_is_not_refused_because_nothing_can_be_claimed(planner: Serving, connection: Connection) -> None:
    async with scripted_worker(planner.channel) as worker:
        task = await one_step(planner, worker)
        other = await planner.start(pipeline_header(), [step("work")])
        async with refusing(connection, "new.session_id IS NOT NULL"):
            # Both in one message, so that they come into one commit.
            reports = Reports(credit=Credit(steps=1))
            reports.reports.add(report_id=1, token=task.token).completed.SetInParent()
            worker.send(reports=reports)
            assert (await worker.ack(1)).status == ACK_STATUS_DURABLE
        assert (await planner.get(str(UUID(bytes=task.token.execution_id)))).state == EXECUTION_STATE_COMPLETED
        assert (await worker.task()).token.execution_id == UUID(other.id).bytes


async def test_a_body_whose_call_cannot_be_recorded_is_told_to_end(planner: Serving) -> None:
    """It has failed with its call, and may wait for the outcome."""
    execution = await planner.start(flow_header())
    async with scripted_worker(planner.channel) as host:
        await host.hello()
        host.credit(bodies=1)
        body = await host.task()
        call = Call(number=1, position=1, name="no \0 in text", invocation_id="work")
        call.submitted.SetInParent()
        host.report(body.token, call=call)
        assert list((await host.next("cancel")).tokens) == [body.token]
    assert (await planner.get(execution.id)).state == EXECUTION_STATE_FAILED
