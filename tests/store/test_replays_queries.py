"""Every statement of planning and replaying is one that Postgres understands."""

from __future__ import annotations

import pytest

from dalsegno_planner.store.sql import load_queries
from tests.store.graphs import connect


@pytest.mark.parametrize("module", ["graph", "replays"])
async def test_every_statement_can_be_prepared(database: str, module: str) -> None:
    connection = await connect(database)
    try:
        await connection.execute(load_queries("replays")["scratch"])
        for name, statement in load_queries(module).items():
            if name not in ("scratch", "analyze", "expect_much"):
                await connection.prepare(statement, name=name)
    finally:
        await connection.close()
