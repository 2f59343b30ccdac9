"""Rows of executions: made once, and found by index."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from dalsegno.errors import NotFoundError
from dalsegno_planner.core import run_names
from dalsegno_planner.core.execution import ExecutionKind, NewExecution
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.store import executions, finding, invocations
from dalsegno_planner.store.encoding import encoded
from dalsegno_planner.store.invocations import GraphRows, InvocationRow, TaskRow
from dalsegno_planner.store.pool import Connection, Pool

GRAPH_SIZE = 20_000


def new_flow() -> NewExecution:
    return NewExecution(new_execution_id(), "default", "", "content", ExecutionKind.FLOW, "kitchens")


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """One of its connections."""
    async with pool.acquire() as acquired:
        yield acquired


async def test_a_request_that_is_made_many_times_at_once_creates_one_execution(pool: Pool) -> None:
    request_id = uuid4()

    async def start() -> object:
        async with pool.acquire() as connection:
            return (await executions.start_flow(connection, replace(new_flow(), request_id=request_id))).id

    assert len(set(await asyncio.gather(*(start() for _ in range(10))))) == 1
    assert await pool.fetchval("SELECT count(*) FROM tasks") == 1


async def test_a_chosen_name_that_is_taken_is_chosen_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["one", "one", "one", "two"])
    monkeypatch.setattr(run_names, "run_name", lambda _: next(names))
    assert (await executions.start_flow(connection, new_flow())).name == "one"
    assert (await executions.start_flow(connection, new_flow())).name == "two"


async def test_what_is_returned_of_a_new_flow_is_what_is_stored(connection: Connection) -> None:
    created = await executions.start_flow(connection, new_flow())
    assert await executions.get(connection, created.id) == created


@pytest.mark.parametrize("is_rich", [False, True])
async def test_rows_are_stored_as_they_are(connection: Connection, is_rich: bool) -> None:
    new = new_flow().id
    began, ended = datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    row = (
        InvocationRow(
            new, 7, 8, "größe_2", "größe", "wait", "failed", "m.ü", "a", "b", 3, 2, began, ended,
            [1, 2, 2**31 - 1], [2], ["lr", "größe", ""], b"\0\xff", b"", b"f", b"o",
        )
        if is_rich
        else InvocationRow(
            new, 7, 7, "s", "s", "step", "pending", "", "", "", 0, 0, None, None, [], [], [], b"", None, None, b""
        )
    )  # fmt: skip
    await invocations.insert_graph(connection, [encoded(GraphRows([row]))])
    stored = await connection.fetchrow(f"SELECT {', '.join(row._fields)} FROM invocations WHERE execution_id = $1", new)
    assert stored is not None
    assert tuple(stored) == row
    edges = await connection.fetch("SELECT upstream, downstream FROM edges WHERE execution_id = $1 ORDER BY 1", new)
    assert [tuple(edge) for edge in edges] == [(upstream, 7) for upstream in row.upstream]


async def large_graph(connection: Connection) -> NewExecution:
    new = replace(new_flow(), kind=ExecutionKind.PIPELINE)
    numbers = range(1, GRAPH_SIZE + 1)
    rows = GraphRows(
        [
            InvocationRow(
                new.id, n, n, f"s_{n}", "s", "step", "pending", "m", "", "", 0, 0, None, None, [n - 1], [], [], b"",
                None, None, b"",
            )
            for n in numbers
        ],
        [TaskRow(new.id, n, False, "default/m:s") for n in numbers],
    )  # fmt: skip
    async with connection.transaction():
        await invocations.insert_graph(connection, [encoded(rows)])
        await executions.start_pipeline(connection, new, GRAPH_SIZE)
    await connection.execute("ANALYZE")
    return new


async def test_hot_queries_go_by_index(connection: Connection) -> None:
    graph = await large_graph(connection)
    # As a planner that has asked often: one plan for all parameters.
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    for name, sql, arguments in (
        ("a page of invocations", invocations.SQL["page"], (graph.id, 10_000, 100, False)),
        ("some invocations", invocations.SQL["some"], (graph.id, [7, 8], False)),
        ("outputs", invocations.SQL["outputs"], (graph.id, [7, 8])),
        ("an execution", executions.SQL["get"], (graph.id,)),
        ("changed", executions.SQL["changed"], ([graph.id], ["pending"], [7])),
        ("unserved work", executions.SQL["unserved"], ([graph.id],)),
    ):
        plan = await explained(connection, sql, *arguments)
        assert "Seq Scan on invocations" not in plan, f"{name}:\n{plan}"
        assert "Seq Scan on tasks" not in plan, f"{name}:\n{plan}"
        assert await rows_touched(connection, sql, *arguments) < 1_000, name


async def test_an_execution_is_found_by_either_end_of_its_id(connection: Connection) -> None:
    """Among many, and by index, on tables of any size: also where the plan was made on an empty one."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    query = executions.SQL["ids_by_suffix"]
    assert "executions_by_suffix" in await explained(connection, query, "ff")
    for _ in range(500):
        await executions.start_flow(connection, new_flow())
    await connection.execute("ANALYZE executions")
    wanted = await executions.start_flow(connection, new_flow())
    digits = wanted.id.hex
    for part in (digits[-10:], str(wanted.id)[-16:], digits[1:], digits[-12:].upper(), digits[:-1]):
        assert (await finding.find(connection, part)).id == wanted.id
    assert await rows_touched(connection, query, digits[:-11:-1]) <= 1
    with pytest.raises(NotFoundError):
        await finding.find(connection, digits[-11:-1] + ("0" if digits[-1] != "0" else "1"))
    with pytest.raises(NotFoundError):
        await finding.find(connection, digits[5:-5])


async def explained(connection: Connection, sql: str, *arguments: object) -> str:
    rows = await connection.fetch(f"EXPLAIN {sql}", *arguments)
    return "\n".join(row[0] for row in rows)


async def rows_touched(connection: Connection, sql: str, *arguments: object) -> float:
    """The most rows that any part of a query's plan went through."""
    ((document,),) = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
    return max(parts(parsed(document)[0]["Plan"]))


def parts(plan: dict[str, object]) -> list[float]:
    rows, loops = plan["Actual Rows"], plan["Actual Loops"]
    assert isinstance(rows, int | float)
    assert isinstance(loops, int | float)
    inner = plan.get("Plans", [])
    assert isinstance(inner, list)
    return [rows * loops, *(touched for part in inner for touched in parts(part))]


def parsed(document: object) -> list[dict[str, dict[str, object]]]:
    assert isinstance(document, str)
    plans: list[dict[str, dict[str, object]]] = json.loads(document)
    return plans
