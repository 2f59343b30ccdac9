"""ExecutionService.Watch and Cancel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from grpc import aio

from dalsegno.v1 import execution_pb2 as states
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceListInvocationsRequest,
    ExecutionServiceWatchRequest,
    ExecutionServiceWatchResponse,
)
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import ask, complete, record_events, set_state
from tests.rpc.serving import Serving, flow_header, output, pipeline_header, serving, step, told

Response = ExecutionServiceWatchResponse


async def watched(planner: Serving, execution: str, **options: Any) -> list[Response]:
    request = ExecutionServiceWatchRequest(execution=execution, **options)
    return [response async for response in planner.executions.Watch(request)]


async def following(stream: aio.UnaryStreamCall[ExecutionServiceWatchRequest, Response]) -> Response | None:
    """The next response; None at the end."""
    response = await stream.read()
    return response if isinstance(response, Response) else None


async def told_next(stream: aio.UnaryStreamCall[ExecutionServiceWatchRequest, Response]) -> Response:
    """The next response of a stream that has not ended."""
    response = await following(stream)
    assert response is not None
    return response


def said(responses: list[Response]) -> list[tuple[int, str]]:
    """The events and states that a stream told of."""
    return [
        (
            one.event,
            f"{one.invocation.number} {states.InvocationState.Name(one.invocation.state)[17:].lower()}"
            if one.HasField("invocation")
            else states.ExecutionState.Name(one.execution.state)[16:].lower(),
        )
        for one in responses
    ]


async def test_every_event_is_told_in_order_and_the_result_last(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(result=output(2)), [step("a"), step("b", x=output(1))])
    await record_events(connection, execution.id, (0, "running"), (1, "completed"))
    await complete(connection, execution.id, 1, 1)
    await complete(connection, execution.id, 2, 2)
    await record_events(connection, execution.id, (2, "completed"))
    await set_state(connection, execution.id, "completed")
    responses = await watched(planner, execution.id)
    assert said(responses) == [
        (0, "completed"),
        (1, "pending"),
        (2, "running"),
        (3, "1 completed"),
        (4, "2 completed"),
        (5, "completed"),
    ]
    assert responses[3].invocation.invocation_id == "a"
    assert not responses[3].invocation.HasField("outputs")
    assert responses[-1].execution.result.inline == b"2"
    assert said(await watched(planner, execution.id, after_event=4)) == [(4, "completed"), (5, "completed")]
    (last,) = await watched(planner, execution.id, execution_only=True)
    assert (last.event, last.execution.result.inline) == (5, b"2")


@pytest.mark.parametrize("execution_only", [False, True])
async def test_a_watcher_is_told_at_once_and_let_go_at_the_end(
    database: str, tmp_path: Path, connection: Connection, execution_only: bool
) -> None:
    async with serving(database, tmp_path, poll_interval=60) as planner:
        execution = await planner.start(flow_header())
        request = ExecutionServiceWatchRequest(execution=execution.id, execution_only=execution_only)
        stream = planner.executions.Watch(request)
        assert (await told_next(stream)).execution.state == states.EXECUTION_STATE_PENDING
        if not execution_only:
            assert (await told_next(stream)).event == 1
        for state in ("running", "completed"):
            await set_state(connection, execution.id, state)
            planner.planner.bus.execution_changed(UUID(execution.id))
            name = states.ExecutionState.Name((await told_next(stream)).execution.state)
            assert name == f"EXECUTION_STATE_{state.upper()}"
        assert await following(stream) is None


@pytest.mark.semantics("7", "it stays pending and says so, with the command that would start one")
@pytest.mark.parametrize("execution_only", [False, True])
async def test_a_watcher_hears_of_changes_that_nobody_announced(
    database: str, tmp_path: Path, connection: Connection, execution_only: bool
) -> None:
    async with serving(database, tmp_path, poll_interval=0.05) as planner:
        execution = await planner.start(flow_header())
        request = ExecutionServiceWatchRequest(execution=execution.id, execution_only=execution_only)
        stream = planner.executions.Watch(request)
        response = await told_next(stream)
        while not response.execution.pending_reason:
            response = await told_next(stream)
        assert "dalsegno worker kitchens" in response.execution.pending_reason
        await connection.execute("UPDATE executions SET state = 'waiting'")  # without an event
        while response.execution.state != states.EXECUTION_STATE_WAITING:
            response = await told_next(stream)
        await set_state(connection, execution.id, "failed")
        last = response
        while (response_or_end := await following(stream)) is not None:
            last = response_or_end
        assert last.execution.state == states.EXECUTION_STATE_FAILED


async def test_who_waits_for_the_end_is_told_what_holds_it_up(
    database: str, tmp_path: Path, connection: Connection
) -> None:
    async with serving(database, tmp_path, poll_interval=60) as planner:
        execution = await planner.start(flow_header())
        request = ExecutionServiceWatchRequest(execution=execution.id, execution_only=True)
        waiting = ExecutionServiceWatchRequest(execution=execution.id, execution_only=True, holdups_only=True)
        until_end, everything = planner.executions.Watch(waiting), planner.executions.Watch(request)
        assert (await told_next(everything)).execution.state == states.EXECUTION_STATE_PENDING
        for state, is_told in (("running", False), ("waiting", True), ("running", True), ("completed", True)):
            await set_state(connection, execution.id, state)
            planner.planner.bus.execution_changed(UUID(execution.id))
            for stream in (everything, until_end)[: 1 + is_told]:
                name = states.ExecutionState.Name((await told_next(stream)).execution.state)
                assert name == f"EXECUTION_STATE_{state.upper()}"
        assert await following(until_end) is None


async def test_what_nobody_can_run_is_told_to_who_waits_for_the_end(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, poll_interval=0.05) as planner:
        execution = await planner.start(flow_header())
        request = ExecutionServiceWatchRequest(execution=execution.id, execution_only=True, holdups_only=True)
        first = await told_next(planner.executions.Watch(request))
        assert "dalsegno worker kitchens" in first.execution.pending_reason


async def test_a_planner_that_stops_lets_its_watchers_go(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, stop_grace=30) as planner:
        execution = await planner.start(flow_header())
        stream = planner.executions.Watch(ExecutionServiceWatchRequest(execution=execution.id, execution_only=True))
        await stream.read()
        stop = asyncio.create_task(planner.planner.stop())
        with pytest.raises(aio.AioRpcError) as error:
            await stream.read()
        assert (error.value.code(), told(error.value).reason) == (grpc.StatusCode.UNAVAILABLE, "PLANNER_STOPPING")
        await stop


async def test_an_unknown_execution_cannot_be_watched(planner: Serving) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await watched(planner, str(uuid4()))
    assert told(error.value).code is grpc.StatusCode.NOT_FOUND


async def test_cancelling_ends_what_runs_and_what_would_have(planner: Serving, connection: Connection) -> None:
    steps = [step("a"), step("b"), step("c", x=output(2))]
    execution = await planner.start(pipeline_header(), steps)
    await complete(connection, execution.id, 1, 1)
    await connection.execute("UPDATE tasks SET session_id = $1 WHERE number = 2", uuid4())
    cancelled = await planner.cancel(execution.id, reason="too slow")
    assert cancelled.state == states.EXECUTION_STATE_CANCELLED
    assert cancelled.failure.message == "cancelled: too slow"
    assert cancelled.HasField("finished_at")
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=execution.id))
    assert [one.state for one in listed.invocations] == [
        states.INVOCATION_STATE_COMPLETED,
        states.INVOCATION_STATE_CANCELLED,
        states.INVOCATION_STATE_NOT_REACHED,
    ]
    told_of = said(await watched(planner, execution.id))
    assert {text for _, text in told_of} == {"cancelled", "pending", "2 cancelled", "3 not_reached"}
    assert told_of[-1] == (4, "cancelled")
    assert await planner.cancel(execution.id, reason="too slow") == cancelled


async def test_cancelling_aborts_waits_and_keeps_the_epoch_of_the_body(
    planner: Serving, connection: Connection
) -> None:
    execution = await planner.start(flow_header())
    await ask(connection, execution.id, 1, "approve")
    await planner.cancel(execution.id)
    assert await connection.fetchval("SELECT state FROM waits") == "aborted"
    assert await connection.fetchval("SELECT body_epoch FROM executions") == 3


@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_what_has_ended_cannot_be_cancelled(planner: Serving, connection: Connection, state: str) -> None:
    execution = await planner.start(flow_header())
    await set_state(connection, execution.id, state)
    with pytest.raises(aio.AioRpcError) as error:
        await planner.cancel(execution.id)
    assert (error.value.code(), told(error.value).reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "EXECUTION_FINISHED",
    )
    assert await connection.fetchval("SELECT state FROM executions") == state
