"""Replays that are asked for twice, or as agreed, or of what changes before and after."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from dalsegno.errors import StateError, UsageError
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.store import invocations
from dalsegno_planner.store.replay_plan import make_plan
from dalsegno_planner.store.replay_request import Creation
from dalsegno_planner.store.replays import DEEPEST_LINEAGE, create_replay
from tests.store.graphs import Database, Recorded, connect, finish, plan, record, replay
from tests.store.replay_requests import asking, chain, from_


async def test_a_request_is_idempotent(connection: Database) -> None:
    source = await chain(connection)
    how = Creation(request_id=uuid4(), request_digest="one")
    first = await replay(connection, from_(source, "fit"), how)
    assert (await replay(connection, from_(source, "fit"), how)).id == first.id
    with pytest.raises(UsageError, match="used for another request"):
        await replay(connection, from_(source, "test"), Creation(how.request_id, "two"))


async def test_the_same_request_at_the_same_time_creates_one_replay(connection: Database, database: str) -> None:
    source = await chain(connection)
    how = Creation(request_id=uuid4(), request_digest="one")
    other = await connect(database)
    try:
        made = await asyncio.gather(*(replay(one, from_(source, "fit"), how) for one in (connection, other)))
    finally:
        await other.close()
    assert made[0].id == made[1].id
    assert await connection.fetchval("SELECT count(*) FROM executions") == 2


async def test_a_plan_that_was_agreed_to_is_kept_to(connection: Database) -> None:
    source = await record(connection, [Recorded("a"), Recorded("b", state="failed")], state="failed")
    agreed = (await plan(connection, from_(source, "a"))).digest
    await replay(connection, from_(source, "a"), Creation(expected_plan=agreed))
    await connection.execute("UPDATE invocations SET state = 'completed' WHERE execution_id = $1", source.id)
    with pytest.raises(StateError) as refused:
        await replay(connection, from_(source, "a"), Creation(expected_plan=agreed))
    assert refused.value.reason == "PLAN_CHANGED"


async def test_a_taken_run_name_is_refused(connection: Database) -> None:
    source = await chain(connection)
    with pytest.raises(UsageError) as refused:
        await replay(connection, asking(source), Creation(name=source.name))
    assert refused.value.reason == "NAME_TAKEN"
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


async def test_what_a_source_gets_later_changes_no_replay(connection: Database) -> None:
    source = await record(
        connection, [Recorded("a"), Recorded("b", state="failed", takes=["a"])], kind="flow", state="failed"
    )
    made = await replay(connection, from_(source, "b"))
    await connection.execute(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module)"
        " VALUES ($1, 3, 3, 'later', 'later', 'completed', 'm')",
        source.id,
    )
    await connection.execute("UPDATE invocations SET state = 'completed' WHERE execution_id = $1", source.id)
    shown, _ = await invocations.list_page(connection, made.id, made.kind, 0, 10)
    assert [(one.invocation_id, str(one.state)) for one in shown] == [("a", "reused"), ("b", "pending")]


async def test_deep_lineages_are_cut_and_show_the_same(connection: Database) -> None:
    source = await chain(connection)
    current = source
    for _ in range(DEEPEST_LINEAGE + 2):
        current = await replay(connection, from_(current, "report"))
        await finish(connection, current)
        shown, _ = await invocations.list_page(connection, current.id, current.kind, 0, 10)
        assert [one.invocation_id for one in shown] == ["load", "fit", "test", "report"]
        assert [one.call_id for one in shown][:3] == [call_id(source.id, number) for number in (1, 2, 3)]
    depth = await connection.fetchval("SELECT count(*) FROM lineage WHERE execution_id = $1", current.id)
    assert depth <= DEEPEST_LINEAGE
    found = await plan(connection, from_(current, "fit"))
    assert (found.affected, found.reused) == (["fit", "test", "report"], {"load": str(call_id(source.id, 1))})


async def test_a_cut_lineage_keeps_the_order_of_futures(connection: Database) -> None:
    current = await chain(connection, kind="flow")
    await connection.executemany("INSERT INTO yields VALUES ($1, $2, $3)", [(current.id, 1, 2), (current.id, 2, 1)])
    order = "SELECT array_agg(number ORDER BY place) FROM effective_yields($1)"
    for _ in range(DEEPEST_LINEAGE + 2):
        current = await replay(connection, from_(current, "report"))
        await finish(connection, current)
        assert await connection.fetchval(order, current.id) == [2, 1]


@pytest.mark.parametrize("change", ["state = 'running', last_event = last_event + 1", None], ids=["retried", "deleted"])
async def test_a_source_that_changes_while_it_is_planned_is_planned_again(
    connection: Database, database: str, change: str | None
) -> None:
    source = await chain(connection)
    other = await connect(database)
    async with connection.transaction():
        made = await make_plan(connection, from_(source, "test"))
        what = f"UPDATE executions SET {change}" if change else "DELETE FROM executions"
        await other.execute(f"{what} WHERE id = $1", source.id)
        with pytest.raises(asyncpg.SerializationError):
            await create_replay(connection, made, Creation())
    await other.close()
