"""Which ready work is claimed first: by lane, by priority, and within one rank in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest

from dalsegno_planner.core.lanes import Lane, rank
from dalsegno_planner.store.sql import load
from tests.store.ledger import NOBODY, Held, Ledger


def _shares(claimed: Sequence[Held], *executions: UUID) -> list[int]:
    counts = Counter(held.execution_id for held in claimed)
    return [counts[execution] for execution in executions]


async def test_executions_share_what_is_claimed(ledger: Ledger) -> None:
    large = await ledger.bulk(1_000)
    small, single = await ledger.bulk(30), await ledger.bulk(1)
    session = await ledger.session()
    assert _shares(await ledger.claim(session, steps=90), large, small, single) == [59, 30, 1]


async def test_who_had_the_last_turn_comes_last(ledger: Ledger) -> None:
    # Those of one millisecond are in no order.
    executions = sorted([await ledger.bulk(10) for _ in range(3)])
    session = await ledger.session()
    turns = []
    last = NOBODY
    for _ in range(6):
        (held,) = await ledger.claim(session, steps=1, last_turns=(last, NOBODY))
        last = held.execution_id
        turns.append(last)
    assert turns == executions * 2


async def test_bodies_have_turns_of_their_own(ledger: Ledger) -> None:
    first, second = await ledger.flow(), await ledger.flow()
    session = await ledger.session()
    (held,) = await ledger.claim(session, bodies=1, last_turns=(second, first))
    assert held.execution_id == second


async def test_what_waits_to_be_tried_again_takes_no_turn(ledger: Ledger) -> None:
    """However many executions wait, and however little is asked for."""
    waiting = [await ledger.bulk(2) for _ in range(5)]
    await ledger.connection.execute("UPDATE tasks SET available_at = clock_timestamp() + interval '1 hour'")
    ready = await ledger.bulk(3)
    session = await ledger.session()
    assert _shares(await ledger.claim(session, steps=1), ready) == [1]
    await ledger.connection.execute(
        "UPDATE tasks SET available_at = clock_timestamp() WHERE execution_id = $1", waiting[1]
    )
    await ledger.connection.execute(load("dispatch")["release_due"])
    assert _shares(await ledger.claim(session, steps=10), waiting[1], ready) == [2, 2]


async def test_a_claim_is_for_one_lane(ledger: Ledger) -> None:
    bulk, live = await ledger.bulk(5, rank(Lane.BULK)), await ledger.bulk(5)
    session = await ledger.session()
    assert _shares(await ledger.claim(session, steps=100), bulk, live) == [0, 5]
    assert _shares(await ledger.claim(session, steps=100, lane=Lane.BULK), bulk, live) == [5, 0]


@pytest.mark.parametrize("lane", Lane)
async def test_higher_priorities_go_first(ledger: Ledger, lane: Lane) -> None:
    low, high = await ledger.bulk(5, rank(lane, -100)), await ledger.bulk(5, rank(lane, 100))
    usual = await ledger.bulk(5, rank(lane))
    session = await ledger.session()
    claimed = await ledger.claim(session, steps=12, lane=lane)
    assert _shares(claimed, high, usual, low) == [5, 5, 2]


async def test_a_successor_has_the_rank_of_its_execution(ledger: Ledger) -> None:
    execution = await ledger.pipeline({1: [], 2: [1]})
    await ledger.connection.execute("UPDATE executions SET lane = $1", rank(Lane.BULK))
    session = await ledger.session()
    (first,) = await ledger.claim(session)
    claims = [(session, 5, 0)]
    assert (await ledger.commit(results=[ledger.result(first)], claims=claims)).claimed == []
    assert _shares((await ledger.commit(claims=claims, lane=Lane.BULK)).claimed, execution) == [1]
