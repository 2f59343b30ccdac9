"""Executions that ended long ago go, and what replays read from stays."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self
from uuid import UUID

import pytest

from dalsegno_planner.core import ids
from dalsegno_planner.dispatch import retention as dispatch_retention
from dalsegno_planner.dispatch.retention import Retention
from dalsegno_planner.store import deletion, retention
from dalsegno_planner.store.pool import Pool
from tests.store.ledger import WAITS_FOR_THIS, Ledger

KEPT = timedelta(days=30)


async def _pipeline(ledger: Ledger, *, days_ago: float, steps: int = 3, ended: bool = True) -> UUID:
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    execution_id = ids.execution_id(int(moment.timestamp() * 1000), steps)
    await ledger.bulk(steps, execution_id=execution_id)
    if ended:
        await ledger.connection.execute("DELETE FROM tasks WHERE execution_id = $1", execution_id)
        await ledger.connection.execute(
            "UPDATE executions SET state = 'completed', finished_at = $2 WHERE id = $1", execution_id, moment
        )
    return execution_id


async def _tables_of_executions(ledger: Ledger) -> set[str]:
    rows = await ledger.connection.fetch(
        """SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attname = 'execution_id'"""
    )
    return {row["relname"] for row in rows}


async def _left(ledger: Ledger) -> set[UUID]:
    return {row["id"] for row in await ledger.connection.fetch("SELECT id FROM executions")}


async def test_what_ended_long_ago_goes_with_all_its_rows(ledger: Ledger, pool: Pool) -> None:
    old = await _pipeline(ledger, days_ago=31, steps=5_000)
    await ledger.connection.execute("INSERT INTO yields SELECT $1, n, n FROM generate_series(1, 10) n", old)
    young = await _pipeline(ledger, days_ago=29)
    going_on = await _pipeline(ledger, days_ago=40, ended=False)
    assert await Retention(KEPT).clear(pool) == 1
    assert await _left(ledger) == {young, going_on}
    for table in await _tables_of_executions(ledger):
        rows = await ledger.connection.fetchval(f"SELECT count(*) FROM {table} WHERE execution_id = $1", old)
        assert rows == 0, table


async def test_a_planner_whose_clock_is_wrong_deletes_nothing_before_its_time(
    ledger: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executions end by the clock of Postgres, and it is that which says how long ago that was."""

    class Fast(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + 2 * KEPT

    young = await _pipeline(ledger, days_ago=29)
    monkeypatch.setattr(dispatch_retention, "datetime", Fast)
    assert await Retention(KEPT).clear(pool) == 0
    assert await _left(ledger) == {young}


async def test_every_table_is_cleared_of_what_is_deleted(ledger: Ledger) -> None:
    assert await _tables_of_executions(ledger) == {*deletion.TABLES, "lineage", "garbage"}


async def test_what_a_replay_reads_from_stays_as_long_as_the_replay(ledger: Ledger, pool: Pool) -> None:
    source = await _pipeline(ledger, days_ago=60)
    replay = await _pipeline(ledger, days_ago=35, ended=False)
    await ledger.connection.execute("INSERT INTO lineage VALUES ($1, 1, $2, 4)", replay, source)
    assert await Retention(KEPT).clear(pool) == 0
    await ledger.connection.execute(
        "UPDATE executions SET state = 'failed', finished_at = now() - interval '32 days' WHERE id = $1", replay
    )
    assert await Retention(KEPT).clear(pool) + await Retention(KEPT).clear(pool) == 2
    assert await _left(ledger) == set()


async def test_a_replay_that_is_made_meanwhile_keeps_its_source(ledger: Ledger, pool: Pool) -> None:
    source = await _pipeline(ledger, days_ago=60)
    before = datetime.now(UTC) - KEPT
    async with pool.acquire() as connection:
        assert list(await retention.expired(connection, before, retention.FIRST, 10)) == [source]
        replay = await _pipeline(ledger, days_ago=0, ended=False)
        await ledger.connection.execute("INSERT INTO lineage VALUES ($1, 1, $2, 4)", replay, source)
        async with connection.transaction():
            assert not await retention.forget(connection, source, before)


async def test_rows_go_in_small_batches(ledger: Ledger, pool: Pool) -> None:
    source = await _pipeline(ledger, days_ago=60, steps=100)
    async with pool.acquire() as connection, connection.transaction():
        assert await retention.forget(connection, source, datetime.now(UTC) - KEPT)
        assert await retention.sweep(connection, 30) == 30
        assert await connection.fetchval("SELECT count(*) FROM invocations") == 70


async def test_a_replay_that_is_being_made_keeps_its_source(ledger: Ledger, pool: Pool) -> None:
    """It has locked its source, and is not to be seen yet when the source's turn comes."""
    source = await _pipeline(ledger, days_ago=60)
    async with ledger.connection.transaction():
        await ledger.connection.execute("SELECT FROM executions WHERE id = $1 FOR SHARE", source)
        replay = await _pipeline(ledger, days_ago=0, ended=False)
        await ledger.connection.execute("INSERT INTO lineage VALUES ($1, 1, $2, 4)", replay, source)
        clearing = asyncio.ensure_future(Retention(KEPT).clear(pool))
        while not clearing.done() and not await ledger.connection.fetchval(WAITS_FOR_THIS):
            pass
    assert await clearing == 0
    assert await _left(ledger) == {source, replay}
