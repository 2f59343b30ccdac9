"""WaitService: questions and answers."""

from __future__ import annotations

import json
from uuid import UUID

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from dalsegno.v1 import wait_service_pb2 as messages
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_RUNNING, INVOCATION_KIND_WAIT, Execution
from dalsegno.v1.executor_service_pb2 import BodySuspended, Call, CallWait
from dalsegno.v1.value_pb2 import Outputs, Value
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import ask, set_state
from tests.rpc.scripted_worker import scripted_worker
from tests.rpc.serving import Serving, flow_header, json_value, told

GRADE = json.dumps(
    {"type": "object", "properties": {"grade": {"type": "integer", "maximum": 6}}, "required": ["grade"]}
)


@pytest.fixture
async def execution(planner: Serving) -> Execution:
    """A flow."""
    return await planner.start(flow_header())


async def answer(
    planner: Serving, execution: Execution, value: object, wait: str = ""
) -> messages.WaitServiceAnswerResponse:
    return await planner.waits.Answer(
        messages.WaitServiceAnswerRequest(execution=execution.id, wait=wait, value=json_value(value), answered_by="ada")
    )


async def refused(planner: Serving, execution: Execution, value: object, wait: str = "") -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await answer(planner, execution, value, wait)
    return error.value


async def test_an_answer_lets_the_flow_go_on(planner: Serving, connection: Connection, execution: Execution) -> None:
    await ask(connection, execution.id, 1, "grade", schema=GRADE)
    response = await answer(planner, execution, {"grade": 2})
    assert response.execution.state == EXECUTION_STATE_RUNNING
    wait = response.wait
    assert (wait.state, wait.answered_by, wait.answer.inline) == (
        messages.WAIT_STATE_ANSWERED,
        "ada",
        b'{"grade":2}',
    )
    call = await connection.fetchrow("SELECT state, outputs FROM invocations")
    assert call is not None
    (output,) = Outputs.FromString(call["outputs"]).outputs
    assert (call["state"], output.name, output.payload) == ("completed", "output", wait.answer)
    body = await connection.fetchrow("SELECT number, is_body, epoch, route FROM tasks")
    assert body is not None
    assert tuple(body) == (0, True, 3, "default/kitchens:content")
    events = await connection.fetch("SELECT event, number, state FROM events ORDER BY event")
    assert [tuple(event) for event in events] == [(1, 0, "pending"), (2, 1, "completed"), (3, 0, "running")]


async def test_a_gate_takes_true_and_false(planner: Serving, connection: Connection, execution: Execution) -> None:
    await ask(connection, execution.id, 1, "approve")
    error = told(await refused(planner, execution, "yes"))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WAIT_VALIDATION")
    assert "true (go on) or false (abort)" in error.message
    assert (await answer(planner, execution, False, "approve")).wait.answer.inline == b"false"


async def test_an_answer_that_does_not_fit_leaves_the_wait_open(
    planner: Serving, connection: Connection, execution: Execution
) -> None:
    await ask(connection, execution.id, 1, "grade", schema=GRADE)
    error = told(await refused(planner, execution, {"grade": 9}))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WAIT_VALIDATION")
    assert error.fields == ["value.grade"]
    assert await connection.fetchval("SELECT state FROM waits") == "pending"
    assert told(await refused(planner, execution, {})).fields == ["value"]
    with pytest.raises(aio.AioRpcError) as bad_json:
        await planner.waits.Answer(
            messages.WaitServiceAnswerRequest(execution=execution.id, value=Value(json="{grade: 1}"))
        )
    assert told(bad_json.value).reason == "INVALID_JSON"
    assert (await answer(planner, execution, {"grade": 1})).wait.state == messages.WAIT_STATE_ANSWERED


async def test_an_answer_while_the_body_still_runs_keeps_its_task(
    planner: Serving, connection: Connection, execution: Execution
) -> None:
    await ask(connection, execution.id, 1, "approve")
    await connection.execute("UPDATE executions SET state = 'running'")
    await connection.execute(
        "INSERT INTO tasks (execution_id, number, epoch, is_body, route) VALUES ($1, 0, 4, true, '')",
        UUID(execution.id),
    )
    await answer(planner, execution, True)
    assert await connection.fetchval("SELECT epoch FROM tasks") == 4
    assert await connection.fetchval("SELECT last_event FROM executions") == 2


@pytest.mark.semantics("6", "No pending wait, an unknown name, one already answered, several pending and no name")
async def test_which_wait_is_meant(planner: Serving, connection: Connection, execution: Execution) -> None:
    def state_error(error: aio.AioRpcError, reason: str) -> str:
        assert (error.code(), told(error).reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
        assert error_details_pb2.PreconditionFailure in told(error).details
        return told(error).message

    assert "no wait is pending" in state_error(await refused(planner, execution, True), "NO_PENDING_WAIT")
    await ask(connection, execution.id, 1, "approve", question="Go on?")
    await ask(connection, execution.id, 2, "approve", invocation_id="approve_2")
    await ask(connection, execution.id, 3, "publish")
    message = state_error(await refused(planner, execution, True), "AMBIGUOUS_WAIT")
    assert "pending: approve: Go on?; approve_2; publish" in message
    assert "publish" in state_error(await refused(planner, execution, True, "aprove"), "UNKNOWN_WAIT")
    assert (await answer(planner, execution, True, "publish")).wait.number == 3
    assert (await answer(planner, execution, True, "approve")).wait.number == 1
    assert "answered already" in state_error(await refused(planner, execution, True, "publish"), "WAIT_NOT_PENDING")
    assert (await answer(planner, execution, True)).wait.number == 2


async def test_waits_of_an_execution_that_has_ended(
    planner: Serving, connection: Connection, execution: Execution
) -> None:
    await set_state(connection, execution.id, "completed")
    error = told(await refused(planner, execution, True))
    assert (error.reason, error.metadata["pending"]) == ("NO_PENDING_WAIT", "")


async def test_a_schema_that_cannot_be_checked(planner: Serving, connection: Connection, execution: Execution) -> None:
    await ask(connection, execution.id, 1, "a", schema='{"type": 7}')
    assert told(await refused(planner, execution, 1)).reason == "BAD_WAIT_SCHEMA"
    await ask(connection, execution.id, 2, "b", schema='{"$ref": "http://localhost:1/schema"}')
    assert told(await refused(planner, execution, 1, "b")).reason == "BAD_WAIT_SCHEMA"


async def test_waits_are_listed_in_pages(planner: Serving, connection: Connection, execution: Execution) -> None:
    for number in (1, 2, 3):
        await ask(connection, execution.id, number, f"w{number}", timeout=60, schema=GRADE if number == 2 else "")
    await answer(planner, execution, True, "w1")
    request = messages.WaitServiceListRequest(execution=execution.id, page_size=2)
    first = await planner.waits.List(request)
    assert [(wait.name, wait.state) for wait in first.waits] == [
        ("w1", messages.WAIT_STATE_ANSWERED),
        ("w2", messages.WAIT_STATE_PENDING),
    ]
    assert first.waits[1].schema == GRADE
    assert first.waits[1].HasField("deadline")
    request.page_token = first.next_page_token
    assert [wait.name for wait in (await planner.waits.List(request)).waits] == ["w3"]
    pending = messages.WaitServiceListRequest(execution=execution.id, pending_only=True)
    assert [wait.name for wait in (await planner.waits.List(pending)).waits] == ["w2", "w3"]


@pytest.mark.semantics("6", "in a flow body suspends the execution: state waiting once nothing else of it runs")
async def test_what_waits_holds_nothing(planner: Serving, connection: Connection) -> None:
    """No task, lease or slot: an executor with room for two bodies has had a hundred, and an answer brings one back."""
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(bodies=2)
        bodies = {}
        for _ in range(100):
            execution = await planner.start(flow_header())
            body = bodies[execution.id] = await worker.task()
            call = Call(number=1, position=1, name="approve", invocation_id="approve", kind=INVOCATION_KIND_WAIT)
            call.wait.CopyFrom(CallWait(question="Go on?"))
            worker.report(body.token, call=call)
            await worker.ack(worker.report(body.token, suspended=BodySuspended(waits=[1])))
            worker.credit(bodies=1)
        assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
        assert await connection.fetchval("SELECT count(*) FROM executions WHERE state = 'waiting'") == 100
        execution_id, body = next(iter(bodies.items()))
        await planner.waits.Answer(messages.WaitServiceAnswerRequest(execution=execution_id, value=json_value(True)))
        again = await worker.task()
        assert (again.token.execution_id, again.token.epoch) == (body.token.execution_id, body.token.epoch + 1)
        (recorded,) = again.body.recorded.calls
        assert recorded.outputs.outputs[0].payload.inline == b"true"
