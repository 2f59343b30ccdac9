"""The statements of planning and replaying: understood by Postgres, and look-ups by whole keys on fresh tables too."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store.replay_plan import make_plan, plan_of_few
from dalsegno_planner.store.replay_request import ReplayRequest
from dalsegno_planner.store.sql import load
from tests.store.graphs import Database, Recorded, plan, record, replay
from tests.store.scale import looking

REPLAYS, GRAPH = load("replays"), load("graph")

# What a plan with few affected invocations runs: its cost must not depend on what else the tables hold.
LOOK_UPS = (
    *((GRAPH, name) for name in ("rows", "candidates", "consumers", "invocation_ids")),
    *(
        (REPLAYS, name)
        for name in (
            "page_of_marks",
            "reused_readers",
            "reused_with_other_code",
            "needed_outputs",
            "affected_with_objects",
            "affected_with_objects_of_few",
        )
    ),
)


@pytest.fixture
async def connection(connection: Database) -> Database:
    await connection.execute("SELECT begin_marks()")
    return connection


@pytest.mark.parametrize("module", ["graph", "replays"])
async def test_every_statement_can_be_prepared(connection: Database, module: str) -> None:
    for name, statement in load(module).items():
        if name not in ("analyze", "expect_much"):
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


_READ = """
    SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
    WHERE relname IN ('executions', 'invocations', 'edges', 'lineage', 'definitions')
"""
_CHAIN = 10


async def reads_of_a_replay(connection: Database, kind: str) -> int:
    """How many rows are read to plan a replay of a chain's last steps, and to create it, in a graph of its own."""
    chain = [Recorded(f"s{number}", takes=[f"s{number - 1}"] if number else []) for number in range(_CHAIN)]
    source = await record(connection, chain, kind=kind, flow=kind)
    request = ReplayRequest(execution=str(source.id), mode=Mode.FROM, selectors=(f"s{_CHAIN // 2}",))
    before = await reads(connection)
    await plan(connection, request)
    await replay(connection, request)
    return await reads(connection) - before


async def reads(connection: Database) -> int:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return int(await connection.fetchval(_READ))


@pytest.mark.parametrize("kind", ["pipeline", "flow"])
async def test_a_plan_reads_rows_by_their_keys(connection: Database, kind: str) -> None:
    few = await reads_of_a_replay(connection, kind)
    for _ in range(20):
        await record(connection, [Recorded(f"s{number}", reads=["rate"], kind="step") for number in range(200)])
    assert await reads_of_a_replay(connection, kind) <= 2 * few


async def test_what_is_planned_in_a_new_database_serves_when_much_has_come(database: str) -> None:
    """Postgres has seen little and analyzed nothing when it chooses indexes, and its choice is kept."""
    async with looking(database) as looks:
        await looks.connection.execute("ALTER TABLE invocations SET (autovacuum_enabled = false)")
        await looks.connection.execute("SELECT begin_marks()")
        little = await record(looks.connection, _links(200))
        async with looks.connection.transaction():
            await make_plan(looks.connection, _last_of(little, 200))
        much = await record(looks.connection, _links(2_000))
        async with looks.cost() as cost:
            made = await make_plan(looks.connection, _last_of(much, 2_000))
            assert made.summary.affected_count == 1
    cost.assert_within(rows=100, pages=500)


def _links(count: int) -> list[Recorded]:
    return [Recorded(f"s{number}", "work", takes=[f"s{number - 1}"] * (number > 1)) for number in range(1, count + 1)]


def _last_of(source: Execution, count: int) -> ReplayRequest:
    return ReplayRequest(execution=str(source.id), mode=Mode.FROM, selectors=(f"invocation:s{count}",))


@pytest.mark.parametrize("selector", ["s20", "invocation:s20"])
async def test_a_plan_from_one_step_takes_one_round_trip(connection: Database, selector: str) -> None:
    source = await record(connection, _links(20))
    request = ReplayRequest(str(source.id), mode=Mode.FROM, selectors=(selector,))
    await plan_of_few(connection, request)  # the first one looks up types as well
    asked: asyncio.Queue[str] = asyncio.Queue()
    connection.add_query_logger(lambda one: asked.put_nowait(one.query))
    made = await plan_of_few(connection, request)
    await connection.execute("SELECT 'next'")
    assert made is not None
    assert (made.summary.affected_count, made.summary.reused_count) == (1, 19)
    assert [await asked.get(), await asked.get()] == [REPLAYS["open"], "SELECT 'next'"]
