"""Tasks that carry much: no claim is more than can be held in memory, and none keeps others from being made."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.store.ledger import Ledger

KILOBYTE = 1 << 10
LIMITS = {"dispatch_most_of_a_claim": 16 * KILOBYTE, "dispatch_most_of_a_task": 128 * KILOBYTE}
"""Kilobytes in the place of megabytes."""


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(database)
    for name, size in LIMITS.items():
        made = f"CREATE OR REPLACE FUNCTION {name}() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT {size}'"
        await opened.connection.execute(made)
    yield opened
    await opened.connection.close()


async def _sized(ledger: Ledger, kilobytes: int) -> None:
    await ledger.connection.execute(
        "UPDATE invocations SET outputs = convert_to(repeat('x', $1), 'UTF8') WHERE state = 'completed'",
        kilobytes * KILOBYTE,
    )


async def test_a_claim_takes_as_many_tasks_as_fit_in(ledger: Ledger) -> None:
    """All at once could be more than Postgres returns, and nothing would ever be claimed."""
    consumers, kilobytes = 40, 6
    await ledger.fan(consumers)
    session = await ledger.session()
    await ledger.commit(results=[ledger.result(held) for held in await ledger.claim(session)])
    await _sized(ledger, kilobytes)
    taken: set[int] = set()
    while len(taken) < consumers:
        commit = await ledger.commit(claims=[(session, consumers, 0)])
        assert 0 < sum(len(row["upstream_outputs"][0]) for row in commit.rows) <= 4 * kilobytes * KILOBYTE
        assert commit.requeued is (len(taken) + len(commit.claimed) < consumers), "there is more"
        assert taken.isdisjoint(held.number for held in commit.claimed)
        taken |= {held.number for held in commit.claimed}
        await ledger.commit(results=[ledger.result(held) for held in commit.claimed])


async def test_one_task_has_as_much_as_there_is_to_it(ledger: Ledger) -> None:
    kilobytes = 40
    execution = await ledger.pipeline({1: [], 2: [], 3: [1, 2]})
    session = await ledger.session()
    await ledger.commit(results=[ledger.result(held) for held in await ledger.claim(session)])
    await _sized(ledger, kilobytes)
    commit = await ledger.commit(claims=[(session, 9, 0)])
    assert [len(output) for output in commit.rows[0]["upstream_outputs"]] == [kilobytes * KILOBYTE] * 2
    assert await ledger.state(execution) == "running"


async def test_what_no_task_can_carry_is_left_out(ledger: Ledger) -> None:
    """The executor fails such a step; a claim that failed would keep all others from being made, for ever."""
    await ledger.pipeline({1: [], 2: [], 3: [1, 2]})
    session = await ledger.session()
    await ledger.commit(results=[ledger.result(held) for held in await ledger.claim(session)])
    await _sized(ledger, 80)
    (row,) = (await ledger.commit(claims=[(session, 9, 0)])).rows
    assert row["upstream"] == [1, 2]
    assert [output is None for output in row["upstream_outputs"]] == [False, True]


async def test_an_execution_begins_when_a_task_of_it_is_given_out(ledger: Ledger) -> None:
    first, second = await ledger.fan(1), await ledger.fan(1)
    session = await ledger.session()
    await ledger.commit(results=[ledger.result(held) for held in await ledger.claim(session)])
    await _sized(ledger, 20)
    await ledger.connection.execute("UPDATE executions SET state = 'pending'")
    assert len((await ledger.commit(claims=[(session, 9, 0)])).claimed) == 1
    assert sorted([await ledger.state(first), await ledger.state(second)]) == ["pending", "running"]
