"""Limits of concurrency: never more than there may be, never fewer while there is work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from dalsegno.v1.definition_pb2 import Concurrency, StepOptions
from dalsegno_planner.core.lanes import Lane, rank
from dalsegno_planner.rpc.limits import task_limit
from dalsegno_planner.store import executions
from tests.store.ledger import Held, Ledger

GPU = ("default/gpu", 3)


@pytest.fixture
async def other(database: str) -> AsyncIterator[Ledger]:
    """Another planner."""
    opened = await Ledger.open(database)
    yield opened
    await opened.connection.close()


async def leased(ledger: Ledger) -> int:
    counted = "SELECT count(*) FROM tasks WHERE session_id IS NOT NULL AND limited_by = $1"
    return int(await ledger.connection.fetchval(counted, GPU[0]))


async def test_a_limit_holds_over_executions_lanes_and_sessions(ledger: Ledger) -> None:
    for number in range(5):
        await ledger.bulk(2, rank(Lane(number % 2)), limit=GPU)
    one, two = await ledger.session(), await ledger.session()
    first = (await ledger.commit(claims=[(one, 2, 0), (two, 9, 0)])).claimed
    assert sorted(held.session_id == one for held in first) == [False, True, True]
    assert await ledger.claim(two, lane=Lane.BULK) == []
    freed = await ledger.commit(
        results=[ledger.result(held) for held in first[:2]], claims=[(one, 9, 0)], lane=Lane.BULK
    )
    assert len(freed.claimed) == 2


async def test_what_is_free_is_found_though_it_is_of_many_executions(ledger: Ledger) -> None:
    await ledger.bulk(1, limit=("default/gpu", 40))
    for _ in range(60):
        await ledger.bulk(1, limit=("default/gpu", 40))
    free = await ledger.bulk(10)
    session = await ledger.session()
    claimed = await ledger.claim(session, steps=50)
    assert len(claimed) == 50
    assert sum(held.execution_id == free for held in claimed) == 10


async def test_one_slot_is_given_in_turn(ledger: Ledger) -> None:
    limited, free = await ledger.bulk(50, limit=GPU), await ledger.bulk(50)
    session = await ledger.session()
    (first,) = await ledger.claim(session, steps=1)
    (second,) = await ledger.claim(session, steps=1, last_turns=(first.execution_id, first.execution_id))
    assert [first.execution_id, second.execution_id] == [limited, free]


async def test_where_numbers_disagree_each_has_its_own(ledger: Ledger) -> None:
    await ledger.bulk(9, limit=("default/gpu", 2))
    wide = await ledger.bulk(9, limit=("default/gpu", 4))
    session = await ledger.session()
    claimed = await ledger.claim(session)
    assert len(claimed) == 4
    assert sum(held.execution_id == wide for held in claimed) >= 2


async def test_a_number_that_has_become_smaller_counts_what_was_leased_before(ledger: Ledger) -> None:
    """The code has changed, and what runs goes on; no new call begins until there is room under the new number."""
    before = await ledger.bulk(4, limit=("default/gpu", 4))
    session = await ledger.session()
    held = await ledger.claim(session)
    assert [one.execution_id for one in held] == [before] * 4
    await ledger.bulk(4, limit=("default/gpu", 2))
    for ended, begun in ((held[:2], 0), (held[2:3], 1), (held[3:], 1)):
        results = [ledger.result(one) for one in ended]
        assert len((await ledger.commit(results=results, claims=[(session, 9, 0)])).claimed) == begun
        assert await leased(ledger) <= 4


async def test_a_number_that_has_become_larger_counts_for_what_is_made_with_it(ledger: Ledger) -> None:
    await ledger.bulk(4, limit=("default/gpu", 1))
    session = await ledger.session()
    assert len(await ledger.claim(session)) == 1
    after = await ledger.bulk(4, limit=("default/gpu", 3))
    assert [one.execution_id for one in await ledger.claim(session)] == [after] * 2


@pytest.mark.parametrize("how", ["returned", "closed", "retry", "cancelled"])
async def test_a_task_that_ends_in_any_way_makes_room(ledger: Ledger, how: str) -> None:
    execution = await ledger.bulk(3, limit=GPU)
    await ledger.bulk(3, limit=GPU)
    session = await ledger.session()
    held = [one for one in await ledger.claim(session) if one.execution_id == execution]
    for one in held:
        match how:
            case "returned":
                await ledger.commit(returned=[one])
            case "retry":
                await ledger.commit(results=[ledger.result(one, "retry", delay=3600)])
            case "closed":
                await ledger.connection.fetchrow("SELECT * FROM close_sessions($1)", [session])
            case _:
                async with ledger.connection.transaction():
                    await executions.cancel(ledger.connection, execution, b"")
    before = await leased(ledger)
    assert before < GPU[1]
    assert len(await ledger.claim(await ledger.session())) == GPU[1] - before


async def test_two_planners_do_not_count_at_once(ledger: Ledger, other: Ledger) -> None:
    await ledger.bulk(9, limit=GPU)
    free = await ledger.bulk(1)
    session, second = await ledger.session(), await other.session()
    async with ledger.connection.transaction():
        assert len(await ledger.claim(session, steps=2)) == 2
        beside = await other.commit(claims=[(second, 9, 0)])
        assert [held.execution_id for held in beside.claimed] in ([free], [])
        assert beside.requeued, "it is to look again"
    assert len(await other.claim(second)) == 1 + (not beside.claimed)
    assert await leased(ledger) == GPU[1]


@pytest.mark.parametrize("seed", range(6))
async def test_never_more_than_the_limit_and_never_idle(
    ledger: Ledger, other: Ledger, database: str, seed: int
) -> None:
    chance = random.Random(seed)
    planners = [ledger, other]
    sessions = [await planner.session() for planner in planners]
    watcher = await Ledger.open(database)
    held: list[Held] = []
    for _ in range(4):
        await ledger.bulk(25, limit=GPU)

    async def turn(which: int) -> None:
        """End some of what this planner's session has, and claim."""
        mine = [one for one in held if one.session_id == sessions[which]]
        ends = chance.sample(mine, chance.randint(0, len(mine)))
        gone = ends[: chance.randint(0, len(ends))]
        for one in ends:
            held.remove(one)
        planner = planners[which]
        done = await planner.commit(
            results=[planner.result(one, chance.choice(["completed", "failed", "retry"])) for one in gone],
            returned=ends[len(gone) :],
            claims=[(sessions[which], chance.randint(0, 5), 0)],
        )
        held.extend(done.claimed)
        assert await leased(planner) <= GPU[1]

    for step in range(60):
        await asyncio.gather(turn(0), turn(1))
        assert await leased(watcher) == len(held) <= GPU[1]
        if step % 10 == 9:
            which = chance.randrange(2)
            await planners[which].connection.fetchrow("SELECT * FROM close_sessions($1)", [sessions[which]])
            held = [one for one in held if one.session_id != sessions[which]]
            sessions[which] = await planners[which].session()
        # Alone, with credit enough, a planner leaves no slot empty while there is work.
        which = chance.randrange(2)
        ready = await watcher.connection.fetchval("SELECT count(*) FROM tasks WHERE session_id IS NULL")
        held += await planners[which].claim(sessions[which], steps=9)
        assert len(held) >= min(GPU[1], ready)
    await watcher.connection.close()


async def test_the_limit_is_read_from_the_options(ledger: Ledger) -> None:
    options = [
        StepOptions(),
        StepOptions(outputs=["z", "zz"], retries=300, retry_jitter=0.5),
        StepOptions(concurrency=Concurrency(name="gpu", most=1)),
        StepOptions(outputs=["zebra"] * 40, retries=2**31, retry_jitter=1.5, retry_on=["a:Z"] * 3,
                    concurrency=Concurrency(name="größer", most=2**32 - 1)),
        StepOptions(concurrency=Concurrency(name="m" * 200 + ":step", most=300)),
    ]  # fmt: skip
    options[3].timeout.FromNanoseconds(-5)
    for one in options:
        row = await ledger.connection.fetchrow("SELECT * FROM task_limit('home', $1)", one.SerializeToString())
        assert tuple(row or ()) == task_limit("home", one.SerializeToString())
