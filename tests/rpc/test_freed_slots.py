"""What a limit has held back begins as soon as a slot is free, in every lane and planner: nobody polls here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration

from dalsegno.v1 import executor_service_pb2
from dalsegno.v1.definition_pb2 import Concurrency, DefinitionRef, StepOptions
from dalsegno.v1.execution_pb2 import INVOCATION_KIND_STEP, LANE_BULK, LANE_LIVE, Execution
from dalsegno.v1.execution_service_pb2 import StepSpec
from dalsegno_planner.store.pool import Connection
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step

HOUR = Duration(seconds=3600)
NO_POLL = {"poll_interval": 600.0, "heartbeat_interval": 600.0, "lease_duration": 1500.0}
ONE_AT_ONCE = StepOptions(concurrency=Concurrency(name="gpu", most=1))


def limited() -> StepSpec:
    spec = step("work")
    spec.options.MergeFrom(ONE_AT_ONCE)
    return spec


@pytest.fixture
async def planner(database: str, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(database, tmp_path, **NO_POLL) as running:
        yield running


@pytest.fixture
async def other(database: str, tmp_path: Path, planner: Serving) -> AsyncIterator[Serving]:
    async with serving(database, tmp_path, **NO_POLL) as running:
        yield running


class Held:
    """A task that has the only slot, and where it came from."""

    def __init__(self, planner: Serving, worker: ScriptedWorker, execution: Execution, task: Any) -> None:
        self.planner = planner
        self.worker = worker
        self.execution = execution
        self.task = task


async def cancelled(held: Held) -> None:
    await held.planner.cancel(held.execution.id)


async def came_back_without(held: Held) -> None:
    held.worker.vanish()
    async with scripted_worker(held.planner.channel, held.worker.key) as again:
        await again.hello()


async def handed_back(held: Held) -> None:
    held.worker.send(returned=executor_service_pb2.Returned(tokens=[held.task.token]))


async def put_off(held: Held) -> None:
    held.worker.retry(held.task, HOUR)


async def completed(held: Held) -> None:
    held.worker.complete(held.task)


async def held_back(planner: Serving, worker: ScriptedWorker) -> Execution:
    """Have an execution wait for the slot, of which an executor with credit has found nothing."""
    await worker.hello()
    worker.credit(steps=2)
    await planner.start(pipeline_header(), [step("work")])
    await worker.task()
    return await planner.start(pipeline_header(lane=LANE_BULK), [limited()])


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("free", [cancelled, came_back_without, handed_back, put_off, completed])
async def test_what_waits_begins_when_the_slot_is(
    planner: Serving, other: Serving, free: Callable[[Held], Awaitable[None]], elsewhere: bool
) -> None:
    async with (
        scripted_worker(planner.channel) as holder,
        scripted_worker((other if elsewhere else planner).channel) as waiter,
    ):
        await holder.hello()
        holder.credit(steps=1)
        execution = await planner.start(pipeline_header(lane=LANE_LIVE), [limited()])
        held = Held(planner, holder, execution, await holder.task())
        waiting = await held_back(other if elsewhere else planner, waiter)
        await free(held)
        began = await waiter.task()
        assert began.token.execution_id in (UUID(waiting.id).bytes, held.task.token.execution_id)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
async def test_so_it_does_when_a_body_ends_that_has_left_it_running(
    planner: Serving, other: Serving, elsewhere: bool
) -> None:
    async with (
        scripted_worker(planner.channel) as holder,
        scripted_worker((other if elsewhere else planner).channel) as waiter,
    ):
        await holder.hello()
        holder.credit(steps=1, bodies=1)
        await planner.start(flow_header(lane=LANE_LIVE))
        body = await holder.task()
        call = executor_service_pb2.Call(
            number=1, position=1, kind=INVOCATION_KIND_STEP, name="work", invocation_id="work",
            definition=DefinitionRef(module="training", name="work"), options=ONE_AT_ONCE,
        )  # fmt: skip
        call.submitted.SetInParent()
        await holder.ack(holder.report(body.token, call=call))
        await holder.task()
        waiting = await held_back(other if elsewhere else planner, waiter)
        holder.fail(body)
        assert (await waiter.task()).token.execution_id == UUID(waiting.id).bytes


EXPIRING = {
    "lease": "UPDATE sessions SET expires_at = '-infinity' WHERE id = $1 AND $2::uuid IS NOT NULL",
    "deadline": "UPDATE executions SET deadline = '-infinity' WHERE id = $2 AND $1::uuid IS NOT NULL",
}
LOOKING_SOON = {"poll_interval": 0.05, "heartbeat_interval": 0.5, "lease_duration": 3.0}
"""A planner counts leases that have run out once it has looked for as long as they last."""


@pytest.mark.parametrize("what", EXPIRING)
async def test_so_it_does_where_another_planner_sees_that_time_is_over(
    database: str, tmp_path: Path, other: Serving, connection: Connection, what: str
) -> None:
    async with (
        serving(database, tmp_path, **LOOKING_SOON) as planner,
        scripted_worker(planner.channel) as holder,
        scripted_worker(other.channel) as waiter,
    ):
        await holder.hello()
        holder.credit(steps=1)
        execution = await planner.start(pipeline_header(timeout=HOUR), [limited()])
        await holder.task()
        await held_back(other, waiter)
        await connection.execute(EXPIRING[what], UUID(bytes=holder.key), UUID(execution.id))
        assert (await waiter.task()).step.invocation_id == "work"
