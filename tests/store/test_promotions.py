"""Successors of one step that are many: they become ready a part at a time, and none is forgotten or told twice."""

from __future__ import annotations

import itertools
from uuid import UUID

import pytest

from dalsegno_planner.store import executions, lifecycle
from tests.store.ledger import Held, Ledger

CONSUMERS = 2_500


async def ready(ledger: Ledger) -> int:
    return int(await ledger.connection.fetchval("SELECT count(*) FROM tasks WHERE session_id IS NULL AND number > 0"))


async def left(ledger: Ledger) -> int:
    return int(await ledger.connection.fetchval("SELECT count(*) FROM tasks WHERE number < 0"))


async def ended_source(ledger: Ledger, consumers: int = CONSUMERS) -> tuple[UUID, UUID]:
    """A step that many take something from, and that has ended; its execution, and a session."""
    execution, session = await ledger.fan(consumers), await ledger.session()
    (source,) = await ledger.claim(session)
    assert (await ledger.commit(results=[ledger.result(source)])).promoting == (consumers > 1_000)
    return execution, session


def two_and(consumers: int) -> dict[int, list[int]]:
    """Two steps, and those that take something from both."""
    return {number: [1, 2] if number > 2 else [] for number in range(1, consumers + 3)}


def submitted(calls: dict[int, list[int]]) -> list[tuple[int, str, list[int]]]:
    """Calls that a body submits, by number, with those that they take something from."""
    return [(number, "submitted", upstream) for number, upstream in calls.items()]


@pytest.mark.parametrize("consumers", [999, 1_000, 1_001, 2_000, CONSUMERS])
async def test_a_thousand_become_ready_at_once(ledger: Ledger, consumers: int) -> None:
    await ended_source(ledger, consumers)
    seen = [await ready(ledger)]
    while await ledger.promote() is not None:
        seen.append(await ready(ledger))
    assert seen[0] == min(consumers, 1_000)
    assert all(after - before <= 1_000 for before, after in itertools.pairwise(seen))
    assert (seen[-1], await left(ledger)) == (consumers, 0)
    assert await ledger.connection.fetchval("SELECT min(blocked_by) + max(blocked_by) FROM invocations") == 0


async def test_any_planner_goes_on_where_one_has_died(ledger: Ledger, database: str) -> None:
    execution, session = await ended_source(ledger)
    await ledger.connection.close()
    ledger.connection = (other := await Ledger.open(database)).connection
    assert await other.promote() == 1_000
    assert await other.promote() == 500
    assert await other.promote() is None
    held: list[Held] = []
    while more := await other.claim(session, steps=1_000):
        held += more
    assert sorted(one.number for one in held) == list(range(2, CONSUMERS + 2))
    await other.commit(results=[other.result(one) for one in held])
    assert await other.state(execution) == "completed"


async def test_one_that_another_planner_is_at_is_left_to_it(ledger: Ledger, database: str) -> None:
    await ended_source(ledger)
    other = await Ledger.open(database)
    async with ledger.connection.transaction():
        assert await ledger.promote() == 1_000
        assert await other.promote() is None
    assert await other.promote() == 500
    await other.connection.close()


async def test_several_producers_are_counted_apart(ledger: Ledger) -> None:
    await ledger.pipeline(two_and(800))
    session = await ledger.session()
    both = await ledger.claim(session)
    assert (await ledger.commit(results=[ledger.result(one) for one in both])).promoting
    assert await ready(ledger) == 200
    while await ledger.promote() is not None:
        pass
    assert await ready(ledger) == 800


async def test_what_is_cancelled_meanwhile_stays_so(ledger: Ledger) -> None:
    execution, _ = await ended_source(ledger)
    async with ledger.connection.transaction():
        assert await executions.cancel(ledger.connection, execution, b"")
    assert await ledger.promote() is None
    assert await ledger.connection.fetchval("SELECT count(*) FROM tasks") == 0
    async with ledger.connection.transaction():
        assert await lifecycle.retry(ledger.connection, execution, lifecycle.Retry())
    assert await ready(ledger) == CONSUMERS


async def test_a_retry_counts_anew(ledger: Ledger) -> None:
    """All consumers of a promotion may have ended before it has: for the sake of another step that failed."""
    execution, session = await ledger.pipeline(two_and(1_500)), await ledger.session()
    first, second = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(first)])
    await ledger.commit(results=[ledger.result(second, "failed")])
    while await ledger.mark_unreached() is not None:
        pass
    assert (await ledger.state(execution), await left(ledger)) == ("failed", 1)
    async with ledger.connection.transaction():
        assert await lifecycle.retry(ledger.connection, execution, lifecycle.Retry())
    assert await ledger.promote() is None
    blocked = "SELECT DISTINCT blocked_by FROM invocations WHERE number > 2"
    assert [row["blocked_by"] for row in await ledger.connection.fetch(blocked)] == [1]


async def test_a_call_that_is_added_meanwhile_is_told_once(ledger: Ledger) -> None:
    execution, session = await ledger.flow(), await ledger.session()
    (body,) = await ledger.claim(session)
    calls = [ledger.call(body, number, "submitted", [1] if number > 1 else []) for number in range(1, CONSUMERS + 2)]
    await ledger.commit(calls=calls)
    (source,) = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(source)])
    late = CONSUMERS + 2
    await ledger.commit(calls=[ledger.call(body, late, "submitted", [1])])
    waits = "SELECT blocked_by FROM invocations WHERE execution_id = $1 AND number = $2"
    assert await ledger.connection.fetchval(waits, execution, late) == 1
    while await ledger.promote() is not None:
        pass
    assert await ledger.connection.fetchval(waits, execution, late) == 0
    assert await ready(ledger) == CONSUMERS + 1
    await ledger.commit(calls=[ledger.call(body, late + 1, "submitted", [1])])
    assert await ledger.connection.fetchval(waits, execution, late + 1) == 0


async def test_a_suspended_flow_waits_once_nothing_is_left_to_be_told(ledger: Ledger) -> None:
    execution, session = await ledger.flow(), await ledger.session()
    (body,) = await ledger.claim(session)
    await ledger.commit(calls=[ledger.call(body, *call) for call in submitted(two_and(1_500))])
    first, second = await ledger.claim(session)
    asked = 1_503
    await ledger.commit(results=[ledger.result(first)], calls=[ledger.call(body, asked, "wait")])
    await ledger.commit(ends=[ledger.end(body, "suspended", waits=[asked])])
    await ledger.commit(results=[ledger.result(second, "failed")])
    assert (await ledger.state(execution), await left(ledger)) == ("running", 1)
    while await ledger.promote() is not None:
        pass
    assert (await ledger.state(execution), await left(ledger)) == ("waiting", 0)
    assert (await ledger.events(execution))[-1][1:] == (0, "waiting")


async def test_the_end_of_a_body_ends_it(ledger: Ledger) -> None:
    _, session = await ledger.flow(), await ledger.session()
    (body,) = await ledger.claim(session)
    calls = [ledger.call(body, number, "submitted", [1] if number > 1 else []) for number in range(1, CONSUMERS + 2)]
    await ledger.commit(calls=calls)
    (source,) = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(source)], ends=[ledger.end(body)])
    assert await ledger.promote() is None
    assert await ledger.connection.fetchval("SELECT count(*) FROM tasks") == 0
