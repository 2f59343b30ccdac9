"""The statements of planning and replaying: understood by Postgres, and look-ups by whole keys on fresh tables too."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dalsegno_planner.store.sql import load_queries
from tests.store.graphs import Database, connect

REPLAYS, GRAPH = load_queries("replays"), load_queries("graph")

# What a plan with few affected invocations runs: its cost must not depend on what else the tables hold.
LOOK_UPS = (
    *((GRAPH, name) for name in ("rows", "candidates", "consumers", "invocation_ids", "step_names")),
    *(
        (REPLAYS, name)
        for name in (
            "source_facts",
            "root_consumers",
            "root_incomplete",
            "affect_descendants",
            "affect_descendants_of_first",
            "page_of_marks",
            "reused_with_other_code",
            "needed_outputs",
            "overrides_of",
            "insert_affected",
            "insert_deltas",
        )
    ),
)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Database]:
    opened = await connect(database)
    await opened.execute(REPLAYS["scratch"])
    yield opened
    await opened.close()


@pytest.mark.parametrize("module", ["graph", "replays"])
async def test_every_statement_can_be_prepared(connection: Database, module: str) -> None:
    for name, statement in load_queries(module).items():
        if name not in ("scratch", "analyze", "expect_much"):
            await connection.prepare(statement, name=name)


@pytest.mark.parametrize(("module", "name"), LOOK_UPS, ids=[name for _, name in LOOK_UPS])
async def test_a_look_up_goes_by_the_execution_s_key(connection: Database, module: dict[str, str], name: str) -> None:
    """On empty tables, where plans are made when an engine is new, and kept."""
    types = [f"{one.schema}.{one.name}" for one in (await connection.prepare(module[name])).get_parameters()]
    statement = module[name].rstrip().rstrip(";")
    async with connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off")
        await connection.execute(f"PREPARE looked_at ({', '.join(types)}) AS {statement}")
        arguments = ", ".join("NULL" for _ in types)
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at ({arguments})")
    for node in nodes(json.loads(plan)[0]["Plan"]):
        assert node["Node Type"] != "Seq Scan" or node["Relation Name"].startswith("replay_"), node
        if node.get("Index Name", "").startswith(("invocations", "edges", "lineage")):
            assert "execution_id = " in node.get("Index Cond", ""), node
            filtered = node.get("Filter", "")
            assert not re.search(r"\b(number|upstream|name|invocation_id) = ", filtered), (
                f"filtered, not looked up: {node}"
            )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes, the outermost first."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)
