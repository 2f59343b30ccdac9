"""Cancels that meet retries, and what is deleted meanwhile."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from grpc import aio

from dalsegno.v1.execution_pb2 import EXECUTION_STATE_CANCELLED, INVOCATION_KIND_STEP
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, Call
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load
from tests.rpc.scripted_worker import FLOW, scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, step, told


async def test_cancels_and_retries_that_come_at_once_wait_for_one_another(
    planner: Serving, connection: Connection
) -> None:
    """Each locks tasks and the execution: those that do so in another order would end one another."""
    execution = await planner.start(pipeline_header(), [step(f"work_{number}") for number in range(50)])
    refused: list[aio.AioRpcError] = []

    async def press(client: int) -> None:
        for turn in range(12):
            try:
                await (planner.cancel if (client + turn) % 2 else planner.retry)(execution.id)
            except aio.AioRpcError as error:
                refused.append(error)

    await asyncio.gather(*map(press, range(16)))
    assert {told(error).reason for error in refused} <= {"EXECUTION_NOT_FINISHED"}
    assert (await planner.cancel(execution.id)).state == EXECUTION_STATE_CANCELLED
    await planner.planner.stop()  # what its connections have counted is told when they are closed
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0


async def test_a_cancel_of_what_is_deleted_meanwhile_is_told(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(), [step("work")])
    async with connection.transaction():
        await connection.execute("DELETE FROM tasks")
        await connection.execute("DELETE FROM executions")
        cancelling = asyncio.ensure_future(planner.cancel(execution.id))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not await connection.fetchval(waiting):
            await connection.execute("SELECT pg_stat_clear_snapshot()")
    with pytest.raises(aio.AioRpcError) as error:
        await cancelling
    assert told(error.value).reason == "EXECUTION_NOT_FOUND"


async def test_a_call_that_a_cancel_has_ended_has_no_outcome(planner: Serving, connection: Connection) -> None:
    """Its body, which another planner has yet to stop, would go on as if it had returned something."""
    execution = await planner.start(flow_header())
    async with scripted_worker(planner.channel) as worker:
        await worker.hello(definitions=[FLOW])
        worker.credit(bodies=1)
        body = await worker.task()
        call = Call(number=1, position=1, name="work", invocation_id="work", kind=INVOCATION_KIND_STEP)
        call.submitted.SetInParent()
        assert (await worker.ack(worker.report(body.token, call=call))).status == ACK_STATUS_DURABLE
        await planner.cancel(execution.id)
    assert await planner.states(execution.id) == {"work": "not_reached"}
    assert await connection.fetch(load("dispatch")["outcomes"], [UUID(execution.id)], [1]) == []
