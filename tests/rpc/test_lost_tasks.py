"""Tasks that are lost with every executor that has them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from dalsegno.v1.execution_pb2 import EXECUTION_STATE_FAILED, FAILURE_ORIGIN_RUNTIME
from dalsegno_planner.store.pool import Connection
from tests.rpc.serving import flow_header, output, pipeline_header, serving, step


@pytest.mark.parametrize("flow", [False, True], ids=["step", "body"])
async def test_a_task_that_is_lost_with_every_executor_fails(
    database: str, connection: Connection, tmp_path: Path, flow: bool
) -> None:
    async with serving(database, tmp_path, poll_interval=0.05) as planner:
        if flow:
            execution = await planner.start(flow_header())
        else:
            execution = await planner.start(pipeline_header(), [step("load"), step("fit", x=output(1))])
        await connection.execute("UPDATE tasks SET losses = 15, epoch = 5")
        ended = await planner.end_of(execution.id)
        assert (ended.state, ended.failure.origin) == (EXECUTION_STATE_FAILED, FAILURE_ORIGIN_RUNTIME)
        assert "lost with its executor too often" in ended.failure.message
        assert ended.failure.invocation_id == ("" if flow else "load")
        assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
        if not flow:
            assert await planner.states(execution.id) == {"load": "failed", "fit": "not_reached"}
        await planner.retry(execution.id)
        task = await connection.fetchrow("SELECT losses, epoch FROM tasks WHERE execution_id = $1", UUID(execution.id))
        assert task is not None
        assert tuple(task) == (0, 5)
