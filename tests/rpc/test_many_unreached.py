"""A step with very many descendants that fails: they are marked between other commits, and whoever waits is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dalsegno.v1.execution_pb2 import EXECUTION_STATE_FAILED
from dalsegno_planner.store.pool import Connection
from tests.rpc.scripted_worker import scripted_worker
from tests.rpc.serving import Serving, output, pipeline_header, serving, step

DESCENDANTS = 2_500
NO_POLL = {"poll_interval": 600.0, "heartbeat_interval": 600.0, "lease_duration": 1500.0}


@pytest.fixture
async def planner(database: str, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(database, tmp_path, **NO_POLL) as running:
        yield running


@pytest.mark.semantics("7", "In a pipeline a failed step stops only its descendants")
async def test_the_end_is_told_once_all_are_marked(planner: Serving, connection: Connection) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        steps = [step("work"), *(step(f"s_{number}", x=output(1)) for number in range(DESCENDANTS))]
        execution = await planner.start(pipeline_header(), steps)
        worker.fail(await worker.task())
        assert (await planner.end_of(execution.id)).state == EXECUTION_STATE_FAILED
    found = await connection.fetch("SELECT state, count(*) FROM invocations GROUP BY state ORDER BY state")
    assert [tuple(row) for row in found] == [("failed", 1), ("not_reached", DESCENDANTS)]
