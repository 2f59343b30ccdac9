"""What retries, answers, ends and housekeeping read does not grow with what is stored."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from dalsegno_planner.dispatch.dispatcher import DISPATCH_SETTINGS
from dalsegno_planner.store.sql import load

LIFECYCLE, WAITS = load("lifecycle"), load("waits")
EXECUTIONS, DISPATCH = load("executions"), load("dispatch")

# One execution's rows, by its ID.
OF_ONE = (
    *((LIFECYCLE, name) for name in LIFECYCLE if name != "keep_for_readers"),
    *((WAITS, name) for name in ("lock_execution", "settle")),
    *((EXECUTIONS, name) for name in ("lock_state", "delete_tasks", "cancel_invocations", "abort_waits", "end")),
    *((DISPATCH, name) for name in ("record_progress", "mark_running", "lost_by_session")),
)
# What is due, lost or expired, wherever it is: by an index that has nothing else in it.
DUE = {
    "waits": (WAITS["due"], "waits_by_deadline"),
    "executions": (EXECUTIONS["due"], "executions_due"),
    "lost tasks": (DISPATCH["lost_tasks"], "tasks_lost"),
    "retries to come": (DISPATCH["next_due"], "tasks_delayed"),
}
BIG = ("executions", "invocations", "edges", "events", "attempts", "waits", "tasks", "lineage", "yields")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    opened = await asyncpg.connect(database)
    await opened.execute("SET plan_cache_mode = force_generic_plan")
    yield opened
    await opened.close()


async def plan_of(connection: asyncpg.Connection[Any], statement: str) -> list[dict[str, Any]]:
    """The nodes of a statement's generic plan."""
    types = [f"{one.schema}.{one.name}" for one in (await connection.prepare(statement)).get_parameters()]
    listed = f" ({', '.join(types)})" if types else ""
    await connection.execute(f"PREPARE looked_at{listed} AS {statement.rstrip().rstrip(';')}")
    given = f" ({', '.join('NULL' for _ in types)})" if types else ""
    plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at{given}")
    return list(nodes(json.loads(plan)[0]["Plan"]))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes, the outermost first."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.parametrize(("module", "name"), OF_ONE, ids=[name for _, name in OF_ONE])
async def test_a_statement_on_one_execution_goes_by_its_key(
    connection: asyncpg.Connection[Any], module: dict[str, str], name: str
) -> None:
    """On empty tables, with the settings of the connections that it runs on."""
    if module is DISPATCH:
        for setting, value in DISPATCH_SETTINGS.items():
            await connection.execute("SELECT set_config($1, $2, false)", setting, value)
    else:
        await connection.execute("SET enable_seqscan = off")
    for node in await plan_of(connection, module[name]):
        if node.get("Relation Name") in BIG:
            assert node["Node Type"] != "Seq Scan", node
        if node.get("Index Name", "").startswith(BIG) and "Index Cond" in node:
            assert re.search(r"\b(execution_id|ancestor_id|id)\b", node["Index Cond"]), node
        elif node["Node Type"].startswith(("Index", "Bitmap Index")):
            raise AssertionError(f"a whole index is read: {node}")


@pytest.mark.parametrize("what", DUE)
async def test_what_is_due_is_found_by_an_index_of_its_own(connection: asyncpg.Connection[Any], what: str) -> None:
    """Also where the tables are large and what is due is little, as statistics say."""
    statement, index = DUE[what]
    await connection.execute(
        """
        INSERT INTO executions (id, project, name, flow, kind, state, module)
        SELECT gen_random_uuid(), 'p', n::text, 'f', 'flow', 'running', 'm' FROM generate_series(1, 5000) n;
        INSERT INTO tasks (execution_id, number, is_body, route)
        SELECT gen_random_uuid(), n, false, 'r' FROM generate_series(1, 5000) n;
        INSERT INTO waits (execution_id, number) SELECT gen_random_uuid(), n FROM generate_series(1, 5000) n;
        ANALYZE executions, tasks, waits;
        """
    )
    plan = await plan_of(connection, statement)
    assert index in {node.get("Index Name") for node in plan}
    for node in plan:
        assert node["Node Type"] != "Seq Scan", node
