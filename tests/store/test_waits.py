"""Waits whose deadline passes."""

from __future__ import annotations

import asyncpg
import pytest

from dalsegno.v1.execution_pb2 import Failure
from dalsegno_planner.core.execution import ExecutionKind, NewExecution
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.store import executions
from dalsegno_planner.store.waits import expire_waits
from tests.rpc.recording import ask, set_state


@pytest.mark.semantics("6", "timeout is a deadline")
async def test_a_wait_times_out_and_its_flow_goes_on(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        execution_id = new_execution_id()
        new = NewExecution(execution_id, "default", "", "content", ExecutionKind.FLOW, "kitchens")
        await executions.start_flow(connection, new)
        await ask(connection, str(execution_id), 1, "approve", timeout=-1)
        await ask(connection, str(execution_id), 2, "publish", timeout=60)
        assert await expire_waits(connection) == [execution_id]
        assert await expire_waits(connection) == []
        rows = await connection.fetch("SELECT state, answered_at FROM waits ORDER BY number")
        assert [tuple(row) for row in rows] == [("timed_out", None), ("pending", None)]
        call = await connection.fetchrow("SELECT state, failure FROM invocations WHERE number = 1")
        assert call is not None
        failure = Failure.FromString(call["failure"])
        assert (call["state"], failure.exception_type) == ("failed", "dalsegno.errors:WaitTimeoutError")
        task = await connection.fetchrow("SELECT epoch, route FROM tasks WHERE number = 0")
        assert task is not None
        assert tuple(task) == (3, "default/kitchens:content")
        assert await connection.fetchval("SELECT state FROM executions") == "running"
    finally:
        await connection.close()


async def test_a_wait_of_an_execution_that_has_ended_stays_as_it_is(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        execution_id = new_execution_id()
        new = NewExecution(execution_id, "default", "", "content", ExecutionKind.FLOW, "kitchens")
        await executions.start_flow(connection, new)
        await ask(connection, str(execution_id), 1, "approve", timeout=-1)
        await set_state(connection, str(execution_id), "failed")
        assert await expire_waits(connection) == []
        assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
    finally:
        await connection.close()
