"""What is deleted, and what is not while it is needed."""

from __future__ import annotations

import grpc
import pytest
from grpc import aio

from dalsegno.v1.execution_service_pb2 import ExecutionServiceDeleteRequest
from dalsegno.v1.replay_service_pb2 import ReplayServiceCreateRequest, ReplaySpec, SelectorList
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import complete, set_state
from tests.rpc.serving import Serving, pipeline_header, step, told

_TABLES = ("executions", "lineage", "invocations", "edges", "tasks", "waits", "attempts", "events")


async def _completed(planner: Serving, connection: Connection) -> str:
    execution = await planner.start(pipeline_header(), [step("load"), step("fit", after=[1])])
    await complete(connection, execution.id, 1, 1)
    await complete(connection, execution.id, 2, 2)
    await set_state(connection, execution.id, "completed")
    return execution.id


async def _delete(planner: Serving, execution: str) -> None:
    await planner.executions.Delete(ExecutionServiceDeleteRequest(execution=execution))


async def _refusal(planner: Serving, execution: str) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(aio.AioRpcError) as refused:
        await _delete(planner, execution)
    error = told(refused.value)
    return error.code, error.reason, error.message


async def test_nothing_of_a_deleted_execution_stays(planner: Serving, connection: Connection) -> None:
    await _delete(planner, await _completed(planner, connection))
    for table in _TABLES:
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_one_that_has_not_ended_is_refused(planner: Serving) -> None:
    execution = await planner.start(pipeline_header(), [step("load")])
    code, reason, message = await _refusal(planner, execution.id)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_NOT_FINISHED")
    assert "cancel it" in message


async def test_one_that_a_replay_reads_from_is_refused_until_that_is_gone(
    planner: Serving, connection: Connection
) -> None:
    source = await _completed(planner, connection)
    spec = ReplaySpec(execution=source, skip=SelectorList(selectors=["load"]))
    replay = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec))).execution
    code, reason, message = await _refusal(planner, source)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_IN_USE")
    assert replay.name in message
    await complete(connection, replay.id, 2, 2)
    await set_state(connection, replay.id, "completed")
    await _delete(planner, replay.id)
    await _delete(planner, source)


async def test_an_unknown_one_is_not_found(planner: Serving) -> None:
    code, _, _ = await _refusal(planner, "no-such-run")
    assert code == grpc.StatusCode.NOT_FOUND
