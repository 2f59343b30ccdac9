"""What a commit reads does not grow with what is stored: plans made on empty tables stay good ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dalsegno_planner.dispatch.recorded import recorded_calls
from dalsegno_planner.store.sql import load
from tests.postgres import PostgresServer
from tests.store.ledger import Ledger

_EXECUTIONS = load("executions")
_LIFECYCLE = load("lifecycle")

_READS = """
    SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
    WHERE relname IN ('executions', 'invocations', 'tasks', 'edges', 'lineage', 'sessions')
"""
_BATCH = 50


async def _reads(ledger: Ledger) -> int:
    await ledger.connection.execute("SELECT pg_stat_force_next_flush()")
    await ledger.connection.execute("SELECT pg_stat_clear_snapshot()")
    return int(await ledger.connection.fetchval(_READS))


async def _reads_of_a_batch(ledger: Ledger) -> int:
    """Claim a batch of steps, report it, and run a flow with a few calls."""
    session = await ledger.session()
    before = await _reads(ledger)
    claimed = await ledger.claim(session, steps=_BATCH, bodies=0)
    await ledger.commit(results=[ledger.result(held) for held in claimed])
    (body,) = await ledger.claim(session, steps=0, bodies=1)
    for number in range(1, 6):
        await ledger.commit(calls=[ledger.call(body, number, upstream=[number - 1] if number > 1 else [])])
    await ledger.commit(ends=[ledger.end(body)])
    return await _reads(ledger) - before


@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
async def test_a_commit_reads_rows_by_their_keys(ledger: Ledger, analyzed: bool) -> None:
    await ledger.flow()
    await ledger.bulk(_BATCH)
    few = await _reads_of_a_batch(ledger)
    if analyzed:  # while there are no tasks
        await ledger.connection.execute("ANALYZE")
    for _ in range(20):
        await ledger.bulk(1_000)
    await ledger.flow()
    many = await _reads_of_a_batch(ledger)
    assert many <= 2 * few


async def test_what_is_planned_in_a_new_database_reads_large_executions_by_their_keys(ledger: Ledger) -> None:
    """Postgres chooses indexes when it has seen a few rows and analyzed none, and keeps to its choice."""
    await ledger.connection.execute("ALTER TABLE invocations SET (autovacuum_enabled = false)")
    session = await ledger.session()
    await ledger.pipeline({1: [], 2: [1]})
    for _ in range(2):
        await ledger.commit(results=[ledger.result(held) for held in await ledger.claim(session, steps=1, bodies=0)])
    await ledger.bulk(1_000)
    await ledger.claim(session, steps=1_000 - _BATCH, bodies=0)
    before = await _reads(ledger)
    claimed = await ledger.claim(session, steps=_BATCH, bodies=0)
    await ledger.commit(results=[ledger.result(held) for held in claimed])
    assert len(claimed) == _BATCH
    assert await _reads(ledger) - before <= 10 * _BATCH


async def test_a_claim_costs_what_it_claims(ledger: Ledger) -> None:
    session = await ledger.session()

    async def reads_of_a_claim() -> int:
        before = await _reads(ledger)
        assert len(await ledger.claim(session, steps=_BATCH, bodies=0)) == _BATCH
        return await _reads(ledger) - before

    await ledger.bulk(10 * _BATCH)
    few = await reads_of_a_claim()
    for _ in range(100):
        await ledger.bulk(200)
    await ledger.bulk(20_000)
    assert await reads_of_a_claim() <= few + 10 * _BATCH


async def test_work_that_has_to_wait_for_others_costs_a_claim_nothing(ledger: Ledger) -> None:
    session = await ledger.session()
    await ledger.bulk(3, limit=("default/gpu", 2))
    (first, second) = await ledger.claim(session, steps=_BATCH, bodies=0)
    await ledger.bulk(_BATCH)

    async def reads_of_a_claim() -> int:
        before = await _reads(ledger)
        claimed = await ledger.claim(session, steps=_BATCH, bodies=0)
        await ledger.commit(returned=claimed)
        assert len(claimed) == _BATCH
        return await _reads(ledger) - before

    few = await reads_of_a_claim()
    await ledger.bulk(100_000, limit=("default/gpu", 2))
    await ledger.connection.execute("ANALYZE tasks")
    assert await reads_of_a_claim() <= few + 10
    again = await ledger.commit(results=[ledger.result(first)], claims=[(session, 2 * _BATCH, 0)])
    assert len(again.claimed) == _BATCH + 1
    await ledger.commit(results=[ledger.result(second)])


async def test_work_without_limits_counts_nothing(ledger: Ledger) -> None:
    session = await ledger.session()
    await ledger.bulk(_BATCH)
    counted = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'tasks_limited'"
    held = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(one) for one in held])
    await _reads(ledger)
    assert await ledger.connection.fetchval(counted) == 0


async def test_promoting_costs_what_is_promoted(ledger: Ledger) -> None:
    await ledger.fan(20_000)
    session = await ledger.session()
    (source,) = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(source)])
    before = await _reads(ledger)
    assert await ledger.promote() == 1_000
    assert await _reads(ledger) - before <= 10 * 1_000


def _rows_looked_at(plan: Any) -> int:
    each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    return int(each * plan["Actual Loops"]) + sum(_rows_looked_at(child) for child in plan.get("Plans", ()))


async def test_a_cancel_costs_what_it_cancels(ledger: Ledger) -> None:
    size = 2_000
    execution_id = await ledger.bulk(size)
    arguments = {"fence_invocations": [list(range(1, size + 1)), [0] * size], "cancel_invocations": [[1, 2]]}
    for name, values in arguments.items():
        explained = await ledger.connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {_EXECUTIONS[name]}", execution_id, *values
        )
        assert _rows_looked_at(json.loads(explained)[0]["Plan"]) <= 10 * size
    assert set((await ledger.states(execution_id)).values()) == {"not_reached", "cancelled"}


async def test_the_recorded_calls_of_a_body_cost_what_they_are(ledger: Ledger) -> None:
    execution_id = await ledger.flow()
    (body,) = await ledger.claim(await ledger.session())

    async def reads_of_the_calls() -> int:
        before = await _reads(ledger)
        (page,) = [page async for page in recorded_calls(ledger.connection, execution_id, 50)]
        assert len(page.calls) == 50
        return await _reads(ledger) - before

    await ledger.commit(calls=[ledger.call(body, number) for number in range(1, 51)])
    few = await reads_of_the_calls()
    await ledger.bulk(20_000)
    assert await reads_of_the_calls() <= few + 10
    assert few <= 4 * 50


async def test_a_sign_of_life_writes_no_index(ledger: Ledger, postgres: PostgresServer) -> None:
    """So that its old versions go without vacuum."""
    postgres.finish()  # a transaction that goes on, of any database, keeps old versions
    sessions = [await ledger.session() for _ in range(20)]
    for _ in range(20):
        await ledger.extend(sessions)
    await _reads(ledger)
    written = await ledger.connection.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'"
    )
    assert written is not None
    assert written["n_tup_upd"] == 400
    assert written["n_tup_hot_upd"] >= 390


async def test_marking_what_comes_after_a_failure_reads_what_it_marks(ledger: Ledger) -> None:
    session = await ledger.session()

    async def reads_of_a_part(consumers: int) -> int:
        await ledger.fan(consumers)
        (source,) = await ledger.claim(session)
        await ledger.commit(results=[ledger.result(source, "failed")])
        before = await _reads(ledger)
        assert await ledger.mark_unreached() == 1_000
        return await _reads(ledger) - before

    few = await reads_of_a_part(2_001)
    await ledger.connection.execute("DELETE FROM tasks")
    assert await reads_of_a_part(20_000) <= 1.1 * few


async def test_a_retry_counts_what_each_step_waits_for_by_its_key(ledger: Ledger) -> None:
    async def reads_of(consumers: int) -> int:
        execution = await ledger.fan(consumers)
        before = await _reads(ledger)
        await ledger.connection.execute(_LIFECYCLE["block"], execution)
        return await _reads(ledger) - before

    few = await reads_of(200)
    assert await reads_of(2_000) <= 12 * few
