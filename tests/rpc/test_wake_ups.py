"""Work that comes to one planner begins at once with an executor of another, and before long where nobody is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from dalsegno.v1.execution_pb2 import INVOCATION_KIND_WAIT
from dalsegno.v1.executor_service_pb2 import BodySuspended, Call, CallWait
from dalsegno.v1.replay_service_pb2 import ReplayServiceCreateRequest
from dalsegno.v1.wait_service_pb2 import WaitServiceAnswerRequest
from dalsegno_planner.dispatch.sessions import task_route
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, flow_header, json_value, pipeline_header, replay_from, serving, step
from tests.store.ledger import Ledger

NO_POLL = {"poll_interval": 600.0, "heartbeat_interval": 600.0, "lease_duration": 1500.0}
LISTENERS = load("dispatch")["count_listeners"]


@pytest.fixture
async def planner(database: str, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(database, tmp_path, **NO_POLL) as running:
        yield running


@pytest.fixture
async def other(database: str, tmp_path: Path, planner: Serving, connection: Connection) -> AsyncIterator[Serving]:
    async with serving(database, tmp_path, **NO_POLL) as running:
        while await connection.fetchval(LISTENERS) < 2:
            pass
        yield running


async def start_of_a_flow(planner: Serving, other: Serving, worker: ScriptedWorker) -> str:
    return (await planner.start(flow_header())).id


async def start_of_a_pipeline(planner: Serving, other: Serving, worker: ScriptedWorker) -> str:
    return (await planner.start(pipeline_header(), [step("work")])).id


async def replay(planner: Serving, other: Serving, worker: ScriptedWorker) -> str:
    source = await other.start(pipeline_header(), [step("work")])
    await worker.ack(worker.complete(await worker.task()))
    request = ReplayServiceCreateRequest(spec=replay_from(source.id, "work"))
    return (await planner.replays.Create(request)).execution.id


async def retry(planner: Serving, other: Serving, worker: ScriptedWorker) -> str:
    failed = await other.start(pipeline_header(), [step("work")])
    await worker.ack(worker.fail(await worker.task()))
    return (await planner.retry(failed.id)).id


async def answer(planner: Serving, other: Serving, worker: ScriptedWorker) -> str:
    asking = await other.start(flow_header())
    body = await worker.task()
    call = Call(number=1, position=1, name="approve", invocation_id="approve", kind=INVOCATION_KIND_WAIT)
    call.wait.CopyFrom(CallWait(question="Go on?"))
    worker.report(body.token, call=call)
    await worker.ack(worker.report(body.token, suspended=BodySuspended(waits=[1])))
    await planner.waits.Answer(WaitServiceAnswerRequest(execution=asking.id, value=json_value(True)))
    return asking.id


@pytest.mark.parametrize("come", [start_of_a_flow, start_of_a_pipeline, replay, retry, answer])
async def test_work_that_comes_to_one_planner_begins_at_another(
    planner: Serving, other: Serving, come: Callable[[Serving, Serving, ScriptedWorker], Awaitable[str]]
) -> None:
    """Nobody polls here."""
    async with scripted_worker(other.channel) as worker:
        await worker.hello()
        worker.credit(steps=3, bodies=3)
        # It has looked for work and has found less than it had room for.
        await other.start(pipeline_header(), [step("work")])
        await worker.task()
        execution = await come(planner, other, worker)
        assert (await worker.task()).token.execution_id == UUID(execution).bytes


async def test_work_of_which_nobody_tells_is_found(database: str, tmp_path: Path) -> None:
    """A planner may die between its commit and its word to the others."""
    async with (
        serving(database, tmp_path, poll_interval=0.1) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        await worker.hello()
        worker.credit(steps=3)
        await planner.start(pipeline_header(), [step("work")])
        await worker.task()
        ledger = await Ledger.open(database)
        async with ledger.connection.transaction():
            silent = await ledger.bulk(1)
            route = task_route("default", "training", "work")
            await ledger.connection.execute("UPDATE tasks SET route = $2 WHERE execution_id = $1", silent, route)
        await ledger.connection.close()
        assert (await worker.task()).token.execution_id == silent.bytes
