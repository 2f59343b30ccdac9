"""Executions that have stopped are put back to work in place: retried, resumed; and waits are aborted."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc import aio

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno.v1 import execution_service_pb2 as messages
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_STEP, Definition, DefinitionRef
from dalsegno.v1.execution_pb2 import Execution, Failure
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, ACK_STATUS_FENCED, Task
from dalsegno.v1.replay_service_pb2 import ReplayServiceCreateRequest, ReplaySpec, SelectorList
from dalsegno.v1.wait_service_pb2 import (
    WAIT_STATE_ABORTED,
    WAIT_STATE_PENDING,
    WaitServiceAbortRequest,
    WaitServiceAbortResponse,
    WaitServiceListRequest,
)
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import ask, set_state
from tests.rpc.scripted_worker import FLOW, ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, flow_header, output, pipeline_header, replay_from, step, told

RUNNING = execution_pb2.EXECUTION_STATE_RUNNING
COMPLETED = execution_pb2.EXECUTION_STATE_COMPLETED
FAILED = execution_pb2.EXECUTION_STATE_FAILED
CANCELLED = execution_pb2.EXECUTION_STATE_CANCELLED
REUSE = executor_service_pb2.RECORDED_CALL_ACTION_REUSE
EXECUTE = executor_service_pb2.RECORDED_CALL_ACTION_EXECUTE
STEPS = [
    Definition(kind=DEFINITION_KIND_STEP, module="training", name=name, digest="d" * 64)
    for name in ("load", "fit", "report", "plot")
]


async def _resume(planner: Serving, execution: str) -> Execution:
    request = messages.ExecutionServiceResumeRequest(execution=execution)
    return (await planner.executions.Resume(request)).execution


async def _abort(planner: Serving, execution: str, wait: str = "") -> WaitServiceAbortResponse:
    return await planner.waits.Abort(WaitServiceAbortRequest(execution=execution, wait=wait, aborted_by="ada"))


async def _refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(aio.AioRpcError) as refused:
        await call
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    error = told(refused.value)
    return error.reason, error.message


async def _attempts(planner: Serving, execution: str) -> list[tuple[int, int]]:
    request = messages.ExecutionServiceListAttemptsRequest(execution=execution)
    page = await planner.executions.ListAttempts(request)
    return [(one.attempt, one.failure.attempt) for one in page.attempts]


async def _ready(worker: ScriptedWorker) -> None:
    await worker.hello(definitions=[*STEPS, FLOW])
    worker.credit(steps=100, bodies=100)


async def _tasks(worker: ScriptedWorker, count: int) -> dict[str, Task]:
    found: dict[str, Task] = {}
    while len(found) < count:
        for task in (await worker.next("tasks")).tasks:
            worker.accept(task)
            found[task.step.invocation_id] = task
    return found


async def _fail(worker: ScriptedWorker, task: Task) -> None:
    failure = _failure(task.step.invocation_id)
    failure.attempt = task.step.attempts_before + task.step.attempt
    failed = worker.report(task.token, failed=executor_service_pb2.TaskFailed(failure=failure))
    assert (await worker.ack(failed)).status == ACK_STATUS_DURABLE


async def _failed_pipeline(planner: Serving, worker: ScriptedWorker) -> tuple[Execution, Task]:
    """`load` and `plot` have completed, `fit` has failed, so that `report` was not reached."""
    graph = [step("load"), step("fit", x=output(1)), step("report", x=output(2)), step("plot", x=output(1))]
    execution = await planner.start(pipeline_header(), graph)
    worker.complete((await _tasks(worker, 1))["load"])
    tasks = await _tasks(worker, 2)
    worker.complete(tasks["plot"])
    await _fail(worker, tasks["fit"])
    assert (await planner.end_of(execution.id)).state == FAILED
    return execution, tasks["fit"]


# Pipelines.


@pytest.mark.semantics("7", "executions.retry re-runs, in place, what ended the execution and what never ran")
async def test_what_failed_and_what_never_ran_runs_again(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution, failed = await _failed_pipeline(planner, worker)
        assert (await planner.retry(execution.id)).state == RUNNING
        assert await planner.states(execution.id) | {"fit": ""} == {
            "load": "completed", "fit": "", "report": "pending", "plot": "completed",
        }  # fmt: skip
        again = (await _tasks(worker, 1))["fit"]
        assert (again.step.attempt, again.token.epoch) == (1, failed.token.epoch + 1)
        worker.complete(again, b"2")
        worker.complete((await _tasks(worker, 1))["report"], b"3")
        ended = await planner.end_of(execution.id)
        assert (ended.state, ended.HasField("failure")) == (COMPLETED, False)
        found = await planner.invocations(execution.id)
        assert {one.outputs.outputs[0].payload.inline for one in found.values()} == {b"1", b"2", b"3"}
        assert found["fit"].attempt == 2


async def test_attempts_keep_their_numbers(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution, _ = await _failed_pipeline(planner, worker)
        await planner.retry(execution.id)
        await _fail(worker, (await _tasks(worker, 1))["fit"])
        await planner.end_of(execution.id)
        assert await _attempts(planner, execution.id) == [(1, 1), (2, 2)]
        assert (await planner.invocations(execution.id))["fit"].failure.attempt == 2
        assert (await planner.get(execution.id)).failure.attempt == 2
        await planner.retry(execution.id)
        await _fail(worker, (await _tasks(worker, 1))["fit"])
        await planner.end_of(execution.id)
        assert await _attempts(planner, execution.id) == [(1, 1), (2, 2), (3, 3)]


async def test_events_go_on_without_gaps(planner: Serving, connection: Connection) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution, _ = await _failed_pipeline(planner, worker)
        await planner.retry(execution.id)
    rows = await connection.fetch("SELECT event, number, state FROM events ORDER BY event")
    assert [row["event"] for row in rows] == list(range(1, len(rows) + 1))
    assert [(row["number"], row["state"]) for row in rows[-3:]] == [(2, "pending"), (3, "pending"), (0, "running")]


async def test_a_retry_that_comes_twice_is_one(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution, _ = await _failed_pipeline(planner, worker)
        request_id = str(uuid4())
        first = await planner.retry(execution.id, request_id=request_id)
        second = await planner.retry(execution.id, request_id=request_id)
        assert (first.state, second.state) == (RUNNING, RUNNING)
        reason, message = await _refusal(planner.retry(execution.id, request_id=str(uuid4())))
        assert (reason, "wait until it has" in message) == ("EXECUTION_NOT_FINISHED", True)


async def test_one_that_has_completed_is_not_retried(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(), [step("load")])
    assert (await _refusal(planner.retry(execution.id)))[0] == "EXECUTION_NOT_FINISHED"
    await set_state(connection, execution.id, "completed")
    reason, message = await _refusal(planner.retry(execution.id))
    assert (reason, "replay it" in message) == ("EXECUTION_FINISHED", True)


async def test_a_cancelled_one_is_retried_and_what_it_ran_before_is_fenced(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution = await planner.start(pipeline_header(), [step("load"), step("fit", x=output(1))])
        stopped = (await _tasks(worker, 1))["load"]
        await planner.executions.Cancel(messages.ExecutionServiceCancelRequest(execution=execution.id))
        await planner.retry(execution.id)
        again = (await _tasks(worker, 1))["load"]
        assert again.token.epoch > stopped.token.epoch
        assert (await worker.ack(worker.complete(stopped, b"666"))).status == ACK_STATUS_FENCED
        assert (await worker.ack(worker.complete(again))).status == ACK_STATUS_DURABLE
        worker.complete((await _tasks(worker, 1))["fit"])
        assert (await planner.end_of(execution.id)).state == COMPLETED


async def test_a_replay_made_before_the_retry_does_not_change(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution, _ = await _failed_pipeline(planner, worker)
        spec = ReplaySpec(execution=execution.id, skip=SelectorList(selectors=["load", "plot"]))
        replay = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec))).execution
        await _fail(worker, (await _tasks(worker, 1))["fit"])
        await planner.end_of(replay.id)
        before = await planner.invocations(replay.id)
        await planner.retry(execution.id)
        worker.complete((await _tasks(worker, 1))["fit"], b"2")
        worker.complete((await _tasks(worker, 1))["report"], b"3")
        assert (await planner.end_of(execution.id)).state == COMPLETED
        assert await planner.invocations(replay.id) == before
        assert (await planner.get(replay.id)).state == FAILED


async def test_it_is_pinned_to_the_code_that_retries_it(planner: Serving, connection: Connection) -> None:
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        execution, _ = await _failed_pipeline(planner, worker)
        pins = [DefinitionRef(module="training", name=name, pinned_digest="e" * 64) for name in ("training", "fit")]
        await planner.retry(execution.id, pinned=pins)
    pinned = await connection.fetch("SELECT name, pinned_digest FROM invocations WHERE state = 'pending' ORDER BY name")
    assert [tuple(row) for row in pinned] == [("fit", "e" * 64), ("report", "")]
    assert await connection.fetchval("SELECT pinned_digest FROM executions") == "e" * 64
    assert await connection.fetchval("SELECT route FROM tasks") == f"default/training:fit@{'e' * 64}"


# Flows.


def _call(number: int, name: str, **action: Any) -> executor_service_pb2.Call:
    return executor_service_pb2.Call(
        number=number,
        position=number,
        kind=execution_pb2.INVOCATION_KIND_STEP,
        name=name,
        invocation_id=name,
        definition=DefinitionRef(module="training", name=name),
        **action,
    )


def _failure(name: str) -> Failure:
    return Failure(origin=execution_pb2.FAILURE_ORIGIN_USER_CODE, message=name, invocation_id=name, attempt=1)


async def _body(worker: ScriptedWorker) -> Task:
    return await worker.task()


async def _reported(worker: ScriptedWorker, body: Task, call: executor_service_pb2.Call) -> None:
    assert (await worker.ack(worker.report(body.token, call=call))).status == ACK_STATUS_DURABLE


async def _fails(worker: ScriptedWorker, body: Task, failure: Failure) -> None:
    failed = worker.report(body.token, failed=executor_service_pb2.TaskFailed(failure=failure))
    assert (await worker.ack(failed)).status == ACK_STATUS_DURABLE


def _actions(body: Task) -> dict[str, int]:
    return {call.invocation_id: call.action for call in body.body.recorded.calls}


async def test_the_call_that_ended_a_flow_is_made_again_and_caught_failures_stay(planner: Serving) -> None:
    execution = await planner.start(flow_header())
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        body = await _body(worker)
        bad = executor_service_pb2.TaskFailed(failure=_failure("load"))
        await _reported(worker, body, _call(1, "load", failed=bad))
        await _reported(worker, body, _call(2, "plot", completed=executor_service_pb2.StepCompleted()))
        bad = executor_service_pb2.TaskFailed(failure=_failure("fit"))
        await _reported(worker, body, _call(3, "fit", failed=bad))
        await _fails(worker, body, _failure("fit"))
        assert (await planner.end_of(execution.id)).state == FAILED
        await planner.retry(execution.id)
        again = await _body(worker)
        assert again.token.epoch == body.token.epoch + 1
        assert _actions(again) == {"load": REUSE, "plot": REUSE, "fit": EXECUTE}
        done = executor_service_pb2.StepCompleted()
        await _reported(worker, again, _call(3, "fit", completed=done))
        worker.report(again.token, returned=executor_service_pb2.BodyReturned())
        assert (await planner.end_of(execution.id)).state == COMPLETED
    assert await planner.states(execution.id) == {"load": "failed", "plot": "completed", "fit": "completed"}
    assert (await planner.invocations(execution.id))["fit"].attempt == 2


async def test_failures_that_the_body_has_not_gone_on_from_are_made_again_together(planner: Serving) -> None:
    execution = await planner.start(flow_header())
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        body = await _body(worker)
        names = ("load", "fit", "plot")
        for number, name in enumerate(names, 1):
            submitted = executor_service_pb2.CallSubmitted()
            await _reported(worker, body, _call(number, name, submitted=submitted))
        tasks = await _tasks(worker, 3)
        await _fail(worker, tasks["plot"])
        await _fail(worker, tasks["load"])
        assert (await worker.ack(worker.complete(tasks["fit"]))).status == ACK_STATUS_DURABLE
        await _fails(worker, body, _failure("load"))
        await planner.retry(execution.id)
        assert _actions(await _body(worker)) == {"load": EXECUTE, "fit": REUSE, "plot": EXECUTE}


async def test_calls_that_were_under_way_are_made_again_and_their_old_runs_are_fenced(planner: Serving) -> None:
    await planner.start(flow_header())
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        body = await _body(worker)
        submitted = executor_service_pb2.CallSubmitted()
        await _reported(worker, body, _call(1, "load", submitted=submitted))
        running = (await _tasks(worker, 1))["load"]
        await _fails(worker, body, Failure(message="the body itself"))
        await planner.retry(running.token.execution_id.hex())
        again = await _body(worker)
        assert _actions(again) == {"load": EXECUTE}
        await _reported(worker, again, _call(1, "load", submitted=submitted))
        second = (await _tasks(worker, 1))["load"]
        assert second.token.epoch > running.token.epoch
        assert (await worker.ack(worker.complete(running, b"666"))).status == ACK_STATUS_FENCED
        assert (await worker.ack(worker.complete(second))).status == ACK_STATUS_DURABLE


async def test_replays_of_a_replay_that_is_retried_do_not_change(planner: Serving) -> None:
    source = await planner.start(flow_header())
    done = executor_service_pb2.StepCompleted()
    bad = executor_service_pb2.TaskFailed(failure=_failure("fit"))
    lost_plot = executor_service_pb2.TaskFailed(failure=_failure("fit"), not_reached=[3])

    async def replay_that_fails(worker: ScriptedWorker, of: str) -> str:
        request = ReplayServiceCreateRequest(spec=replay_from(of, "fit"))
        replay = (await planner.replays.Create(request)).execution
        body = await _body(worker)
        await _reported(worker, body, _call(2, "fit", failed=bad))
        await worker.ack(worker.report(body.token, failed=lost_plot))
        assert (await planner.end_of(replay.id)).state == FAILED
        return replay.id

    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        body = await _body(worker)
        for number, name in enumerate(("load", "fit", "plot"), 1):
            await _reported(worker, body, _call(number, name, completed=done))
        await worker.ack(worker.report(body.token, returned=executor_service_pb2.BodyReturned()))
        first = await replay_that_fails(worker, source.id)
        second = await replay_that_fails(worker, first)
        before = await planner.invocations(second)
        await planner.retry(first)
        again = await _body(worker)
        assert _actions(again) == {"load": REUSE, "fit": EXECUTE, "plot": REUSE}
        await _reported(worker, again, _call(2, "fit", completed=done))
        # The body does something else with what it reused before: it runs it, and leaves out the rest.
        await _reported(worker, again, _call(1, "load", completed=done))
        worker.report(again.token, returned=executor_service_pb2.BodyReturned(not_reached=[3]))
        assert (await planner.end_of(first)).state == COMPLETED
        assert await planner.invocations(second) == before
        await planner.retry(second)
        assert _actions(await _body(worker)) == {"load": REUSE, "fit": EXECUTE}


async def test_after_a_divergence_everything_that_ended_is_reused(planner: Serving) -> None:
    execution = await planner.start(flow_header())
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        body = await _body(worker)
        await _reported(worker, body, _call(1, "load", completed=executor_service_pb2.StepCompleted()))
        bad = executor_service_pb2.TaskFailed(failure=_failure("fit"))
        await _reported(worker, body, _call(2, "fit", failed=bad))
        await _fails(worker, body, Failure(origin=execution_pb2.FAILURE_ORIGIN_DIVERGENCE, message="diverged"))
        await planner.retry(execution.id)
        assert _actions(await _body(worker)) == {"load": REUSE, "fit": REUSE}


# Waits.


async def test_one_whose_waits_are_answered_is_resumed_once(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(flow_header())
    await ask(connection, execution.id, 1, "approve")
    reason, message = await _refusal(_resume(planner, execution.id))
    assert (reason, "approve" in message) == ("WAIT_PENDING", True)
    await connection.execute("UPDATE waits SET state = 'answered'")
    assert (await _resume(planner, execution.id)).state == RUNNING
    assert (await _resume(planner, execution.id)).state == RUNNING
    tasks = await connection.fetch("SELECT number, epoch, route FROM tasks")
    assert [tuple(row) for row in tasks] == [(0, 3, "default/kitchens:content")]
    events = await connection.fetch("SELECT event, state FROM events ORDER BY event")
    assert [tuple(row) for row in events] == [(1, "pending"), (2, "running")]
    await set_state(connection, execution.id, "failed")
    assert "retry it" in (await _refusal(_resume(planner, execution.id)))[1]


async def test_an_aborted_wait_cancels_and_a_retry_asks_again(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(flow_header())
    assert (await _refusal(_abort(planner, execution.id)))[0] == "NO_PENDING_WAIT"
    await ask(connection, execution.id, 1, "approve")
    await connection.execute("UPDATE executions SET invocation_count = 1")
    assert (await _refusal(_abort(planner, execution.id, "aprove")))[0] == "UNKNOWN_WAIT"
    for _ in range(2):
        aborted = await _abort(planner, execution.id, "approve")
        assert (aborted.wait.state, aborted.execution.state) == (WAIT_STATE_ABORTED, CANCELLED)
        assert "aborted by ada" in aborted.execution.failure.message
    await planner.retry(execution.id)
    async with scripted_worker(planner.channel) as worker:
        await _ready(worker)
        body = await _body(worker)
        assert _actions(body) == {"approve": EXECUTE}
        wait = _call(1, "approve", wait=executor_service_pb2.CallWait(question="Sure?"))
        wait.kind = execution_pb2.INVOCATION_KIND_WAIT
        await _reported(worker, body, wait)
        worker.report(body.token, suspended=executor_service_pb2.BodySuspended(waits=[1]))
        (asked,) = (await planner.waits.List(WaitServiceListRequest(execution=execution.id))).waits
        assert (asked.state, asked.question) == (WAIT_STATE_PENDING, "Sure?")
