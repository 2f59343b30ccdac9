"""Executions end at their deadline by the database's clock; what runs of them, on whichever planner, is stopped."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from dalsegno.v1 import execution_service_pb2 as messages
from dalsegno.v1.execution_pb2 import (
    EXECUTION_STATE_CANCELLED,
    EXECUTION_STATE_COMPLETED,
    EXECUTION_STATE_FAILED,
    EXECUTION_STATE_RUNNING,
    FAILURE_ORIGIN_RUNTIME,
    INVOCATION_STATE_CANCELLED,
    INVOCATION_STATE_COMPLETED,
    INVOCATION_STATE_NOT_REACHED,
    Execution,
)
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_FENCED
from dalsegno.v1.replay_service_pb2 import ReplayServiceCreateRequest, ReplaySpec
from dalsegno.v1.wait_service_pb2 import WAIT_STATE_ABORTED, WaitServiceListRequest
from dalsegno_planner.store import executions
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import ask, set_state
from tests.rpc.scripted_worker import FLOW, STEP, scripted_worker
from tests.rpc.serving import Serving, flow_header, output, pipeline_header, serving, step, told

HOUR = Duration(seconds=3600)


async def pass_deadline(connection: Connection, execution: Execution) -> None:
    """Let an execution's time be over."""
    passed = await connection.fetchval(
        "UPDATE executions SET deadline = clock_timestamp() - interval '1 second'"
        " WHERE id = $1 AND deadline IS NOT NULL RETURNING id",
        UUID(execution.id),
    )
    assert passed is not None


async def test_a_deadline_is_that_long_after_the_creation(planner: Serving) -> None:
    for header, steps in ((flow_header(timeout=HOUR), []), (pipeline_header(timeout=HOUR), [[step("work")]])):
        started = await planner.start(header, *steps)
        got = await planner.get(started.id)
        assert got.timeout == started.timeout == HOUR
        assert got.deadline == started.deadline
        assert abs(got.deadline.ToNanoseconds() - got.created_at.ToNanoseconds() - 3600e9) < 1e9
    unlimited = await planner.get((await planner.start(flow_header())).id)
    assert not unlimited.HasField("timeout")
    assert not unlimited.HasField("deadline")


@pytest.mark.parametrize("timeout", [Duration(), Duration(seconds=-1), Duration(seconds=2_000_000_000)])
async def test_a_timeout_is_a_time(planner: Serving, timeout: Duration) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await planner.start(flow_header(timeout=timeout))
    assert (refused.value.code(), told(refused.value).reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_TIMEOUT",
    )


async def test_what_runs_is_told_and_stopped(planner: Serving, connection: Connection) -> None:
    graph = [step("work"), step("work_2", x=output(1)), step("work_3", x=output(2))]
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        execution = await planner.start(pipeline_header(timeout=HOUR), graph)
        worker.complete(await worker.task())
        worker.credit(steps=1)
        running = await worker.task()
        await pass_deadline(connection, execution)
        failed = await planner.end_of(execution.id)
        assert (failed.state, failed.failure.origin, failed.failure.reason) == (
            EXECUTION_STATE_FAILED,
            FAILURE_ORIGIN_RUNTIME,
            "EXECUTION_TIMEOUT",
        )
        assert failed.failure.message == "pipeline 'training' exceeded its timeout of 3600 s"
        cancel = await worker.next("cancel")
        assert cancel.tokens == [running.token]
        assert (await worker.ack(worker.complete(running))).status == ACK_STATUS_FENCED
    page = await planner.executions.ListInvocations(
        messages.ExecutionServiceListInvocationsRequest(execution=execution.id)
    )
    assert [one.state for one in page.invocations] == [
        INVOCATION_STATE_COMPLETED,
        INVOCATION_STATE_CANCELLED,
        INVOCATION_STATE_NOT_REACHED,
    ]
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 0


async def test_waits_end_with_it(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(flow_header(timeout=HOUR))
    await ask(connection, execution.id, 1, "approve")
    await set_state(connection, execution.id, "waiting")
    await pass_deadline(connection, execution)
    assert (await planner.end_of(execution.id)).failure.reason == "EXECUTION_TIMEOUT"
    (wait,) = (await planner.waits.List(WaitServiceListRequest(execution=execution.id))).waits
    assert wait.state == WAIT_STATE_ABORTED


async def test_a_retry_has_the_same_time_again(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(timeout=HOUR), [step("work")])
    await pass_deadline(connection, execution)
    failed = await planner.end_of(execution.id)
    again = await planner.retry(execution.id)
    assert (again.state, again.timeout) == (EXECUTION_STATE_RUNNING, HOUR)
    assert again.deadline.ToNanoseconds() - failed.finished_at.ToNanoseconds() > 3600e9


async def test_what_has_ended_has_no_deadline(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(timeout=HOUR), [step("work")])
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        worker.complete(await worker.task())
        assert (await planner.end_of(execution.id)).state == EXECUTION_STATE_COMPLETED
    await pass_deadline(connection, execution)
    assert await executions.time_out(connection) == []
    assert (await planner.get(execution.id)).state == EXECUTION_STATE_COMPLETED


async def test_a_replay_may_take_as_long_as_its_source(planner: Serving, connection: Connection) -> None:
    source = await planner.start(flow_header(timeout=HOUR))
    await set_state(connection, source.id, "completed")
    spec = ReplaySpec(execution=source.id)
    same = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec))).execution
    shorter = ReplayServiceCreateRequest(spec=spec, timeout=Duration(seconds=5))
    other = (await planner.replays.Create(shorter)).execution
    debugged = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec, debug=True))).execution
    assert (same.timeout, other.timeout.seconds) == (HOUR, 5)
    assert not debugged.HasField("timeout")


async def test_another_planner_is_told_what_to_stop(database: str, tmp_path: Path, planner: Serving) -> None:
    async with (
        serving(database, tmp_path, poll_interval=60, heartbeat_interval=60, lease_duration=180) as other,
        scripted_worker(other.channel) as worker,
    ):
        await worker.hello()
        worker.credit(steps=1)
        execution = await planner.start(pipeline_header(), [step("work")])
        other.planner.bus.work_ready()
        task = await worker.task()
        cancelled = await planner.cancel(execution.id)
        assert cancelled.state == EXECUTION_STATE_CANCELLED
        assert (await worker.next("cancel")).tokens == [task.token]


async def test_a_step_whose_task_is_gone_is_stopped_whoever_ended_it(
    database: str, tmp_path: Path, connection: Connection
) -> None:
    async with (
        serving(database, tmp_path, poll_interval=0.05, heartbeat_interval=0.1) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        await worker.hello(definitions=[STEP, FLOW])
        worker.credit(steps=2)
        await planner.start(pipeline_header(), [step("work"), step("work_2")])
        tasks = {task.step.invocation_id: task for task in (await worker.next("tasks")).tasks}
        while len(tasks) < 2:
            tasks |= {task.step.invocation_id: task for task in (await worker.next("tasks")).tasks}
        for task in tasks.values():
            worker.accept(task)
        await connection.execute("DELETE FROM tasks WHERE number = 2")
        assert (await worker.next("cancel")).tokens == [tasks["work_2"].token]
        assert (await worker.ack(worker.complete(tasks["work"]))).status != ACK_STATUS_FENCED
