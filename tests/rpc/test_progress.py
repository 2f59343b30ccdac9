"""How far steps have come travels with heartbeats, is shown and watched; who has lost a task says nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dalsegno.v1 import execution_service_pb2 as messages
from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.execution_pb2 import (
    INVOCATION_STATE_COMPLETED,
    INVOCATION_STATE_RUNNING,
    Execution,
    Invocation,
    Progress,
)
from dalsegno.v1.executor_service_pb2 import Call, CallStarted, Heartbeat, StepProgress, Task, TaskToken
from dalsegno_planner.store.pool import Connection
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step


@pytest.fixture
async def planner(database: str, tmp_path: Path) -> AsyncIterator[Serving]:
    """A planner that looks after its house often."""
    async with serving(database, tmp_path, poll_interval=0.05, heartbeat_interval=0.1) as running:
        yield running


def say(worker: ScriptedWorker, token: TaskToken, number: int, done: float) -> None:
    progress = StepProgress(token=token, number=number, progress=Progress(done=done, total=10, message="rows"))
    worker.send(heartbeat=Heartbeat(running=[token], progress=[progress]))


async def watched(planner: Serving, execution: Execution, done: float) -> Invocation:
    """The invocation in the first event that says so much is done."""
    request = messages.ExecutionServiceWatchRequest(execution=execution.id)
    async for response in planner.executions.Watch(request):
        if response.invocation.progress.done == done:
            return response.invocation
    raise AssertionError("the execution has ended")


async def running_step(planner: Serving, worker: ScriptedWorker) -> tuple[Execution, Task]:
    await worker.hello()
    worker.credit(steps=1)
    execution = await planner.start(pipeline_header(), [step("work")])
    return execution, await worker.task()


async def test_a_watch_hears_of_each_heartbeat(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        execution, task = await running_step(planner, worker)
        for done in (3, 7):
            say(worker, task.token, 1, done)
            seen = await watched(planner, execution, done)
            assert (seen.state, seen.progress.total, seen.progress.message) == (INVOCATION_STATE_RUNNING, 10, "rows")
        await worker.ack(worker.complete(task))
        request = messages.ExecutionServiceListInvocationsRequest(execution=execution.id)
        (last,) = (await planner.executions.ListInvocations(request)).invocations
        assert (last.state, last.progress.done) == (INVOCATION_STATE_COMPLETED, 7)


async def test_a_call_that_a_body_runs_itself_has_it_too(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(bodies=1)
        execution = await planner.start(flow_header())
        body = await worker.task()
        call = Call(
            number=1, position=1, name="work", invocation_id="work", definition=DefinitionRef(module="m", name="work")
        )
        call.started.CopyFrom(CallStarted())
        await worker.ack(worker.report(body.token, call=call))
        say(worker, body.token, 1, 4)
        assert (await watched(planner, execution, 4)).invocation_id == "work"


async def test_who_has_lost_the_task_says_nothing_of_it(planner: Serving, connection: Connection) -> None:
    async with scripted_worker(planner.channel) as worker:
        execution, task = await running_step(planner, worker)
        stale = TaskToken(execution_id=task.token.execution_id, number=1, epoch=task.token.epoch + 1)
        say(worker, stale, 1, 9)
        say(worker, task.token, 1, 2)
        await watched(planner, execution, 2)
        stored = await connection.fetchval("SELECT progress FROM invocations")
        assert Progress.FromString(stored).done == 2


async def test_what_is_said_again_is_no_event(planner: Serving, connection: Connection) -> None:
    async with scripted_worker(planner.channel) as worker:
        execution, task = await running_step(planner, worker)
        say(worker, task.token, 1, 5)
        await watched(planner, execution, 5)
        before = await connection.fetchval("SELECT last_event FROM executions")
        say(worker, task.token, 1, 5)
        say(worker, task.token, 1, 6)
        await watched(planner, execution, 6)
        assert await connection.fetchval("SELECT last_event FROM executions") == before + 1
