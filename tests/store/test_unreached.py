"""What comes after a failed step of a pipeline is marked a part at a time; nothing is forgotten, or counted twice."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalsegno_planner.store import executions, lifecycle
from tests.store.ledger import Ledger

PART = 3
ENDED = {"completed", "failed", "not_reached"}
BEHIND = 8
"""Steps after the one that fails: some parts of three."""


async def in_small_parts(ledger: Ledger) -> None:
    await ledger.connection.execute(
        f"CREATE OR REPLACE FUNCTION dispatch_part() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT {PART}'"
    )


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(database)
    await in_small_parts(opened)
    yield opened
    await opened.connection.close()


def chain(length: int) -> dict[int, list[int]]:
    return {number: [number - 1] if number > 1 else [] for number in range(1, length + 1)}


def fan(length: int) -> dict[int, list[int]]:
    return {number: [1] if number > 1 else [] for number in range(1, length + 1)}


async def failed_source(ledger: Ledger, graph: Mapping[int, Sequence[int]]) -> tuple[UUID, UUID]:
    """A pipeline whose first step has failed; its execution, and a session."""
    execution, session = await ledger.pipeline(graph), await ledger.session()
    (source,) = await ledger.claim(session)
    committed = await ledger.commit(results=[ledger.result(source, "failed")])
    assert committed.promoting
    return execution, session


async def unreached(ledger: Ledger, execution: UUID) -> int:
    return Counter((await ledger.states(execution)).values())["not_reached"]


async def tasks(ledger: Ledger) -> int:
    return int(await ledger.connection.fetchval("SELECT count(*) FROM tasks"))


@pytest.mark.parametrize("graph", [chain(1 + BEHIND), fan(1 + BEHIND)], ids=["chain", "fan"])
async def test_a_part_is_marked_at_once(ledger: Ledger, graph: dict[int, list[int]]) -> None:
    execution, _ = await failed_source(ledger, graph)
    assert (await unreached(ledger, execution), await ledger.state(execution)) == (PART, "running")
    parts = []
    while (marked := await ledger.mark_unreached()) is not None:
        parts.append(marked)
        assert (await ledger.state(execution) == "failed") == (sum(parts) == BEHIND - PART)
    assert (parts[:2], sum(parts)) == ([PART, 2], BEHIND - PART)
    assert await tasks(ledger) == 0


async def test_any_planner_goes_on_where_one_has_died(ledger: Ledger, database: str) -> None:
    execution, _ = await failed_source(ledger, chain(1 + BEHIND))
    transaction = ledger.connection.transaction()
    await transaction.start()
    assert await ledger.mark_unreached() == PART
    ledger.connection.terminate()

    ledger.connection = (other := await Ledger.open(database)).connection
    while await other.mark_unreached() is not None:
        pass
    assert await other.state(execution) == "failed"
    assert await unreached(other, execution) == BEHIND
    told = [number for _, number, state in await other.events(execution) if state == "not_reached"]
    assert sorted(told) == list(range(2, 2 + BEHIND))


async def test_one_that_another_planner_is_at_is_left_to_it(ledger: Ledger, database: str) -> None:
    execution, _ = await failed_source(ledger, fan(1 + BEHIND))
    other = await Ledger.open(database)
    async with ledger.connection.transaction():
        assert await ledger.mark_unreached() == PART
        assert await other.mark_unreached() is None
    assert await other.mark_unreached() == 2
    assert await other.state(execution) == "failed"
    await other.connection.close()


async def test_two_planners_mark_what_both_come_to_once(ledger: Ledger, database: str) -> None:
    """Both take the rest of a step of their own; the consumers are the same."""
    both = {1: [], 2: [], **{number: [1, 2] for number in range(3, 3 + BEHIND)}}
    execution, session = await ledger.pipeline(both), await ledger.session()
    first, second = await ledger.claim(session)
    other = await Ledger.open(database)
    transaction = ledger.connection.transaction()
    await transaction.start()
    await ledger.commit(results=[ledger.result(first, "failed")])
    waiting = asyncio.create_task(other.commit(results=[other.result(second, "failed")]))
    while not await ledger.connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        assert not waiting.done()
    await transaction.commit()
    await waiting
    while await ledger.mark_unreached() is not None or await other.mark_unreached() is not None:
        pass
    assert await ledger.state(execution) == "failed"
    events = await ledger.events(execution)
    assert Counter(number for _, number, state in events if state in ENDED) == dict.fromkeys(range(BEHIND + 3), 1)
    assert await tasks(ledger) == 0
    await other.connection.close()


async def test_what_is_cancelled_meanwhile_stays_so_and_is_retried_whole(ledger: Ledger) -> None:
    execution, session = await failed_source(ledger, chain(1 + BEHIND))
    async with ledger.connection.transaction():
        assert await executions.cancel(ledger.connection, execution, b"")
    assert await ledger.mark_unreached() is None
    assert await tasks(ledger) == 0
    assert await unreached(ledger, execution) == BEHIND
    async with ledger.connection.transaction():
        assert await lifecycle.retry(ledger.connection, execution, lifecycle.Retry())
    assert await ledger.mark_unreached() is None
    while held := await ledger.claim(session):
        await ledger.commit(results=[ledger.result(one) for one in held])
    assert await ledger.state(execution) == "completed"


async def test_a_branch_that_goes_on_ends_the_execution_once_all_is_marked(ledger: Ledger) -> None:
    graph = {**chain(1 + BEHIND), 20: [], 21: [20]}
    execution, session = await ledger.pipeline(graph), await ledger.session()
    first, other = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(first, "failed"), ledger.result(other)])
    (last,) = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(last)])
    assert await ledger.state(execution) == "running"
    while await ledger.mark_unreached() is not None:
        pass
    assert await ledger.state(execution) == "failed"
    assert await unreached(ledger, execution) == BEHIND


TURNS = list(itertools.product([0, 1], [True, False]))
"""Which planner is next, and whether it runs steps or marks."""


async def test_what_takes_an_override_goes_on(ledger: Ledger) -> None:
    execution, session = await ledger.pipeline(chain(4)), await ledger.session()
    await override(ledger, execution, {2})
    (first,) = await ledger.claim(session, steps=1)
    await ledger.commit(results=[ledger.result(first, "failed")])
    assert await ledger.mark_unreached() is None
    assert await ledger.states(execution) == {1: "failed", 2: "not_reached", 3: "pending", 4: "pending"}
    while held := await ledger.claim(session):
        await ledger.commit(results=[ledger.result(one) for one in held])
    assert await ledger.state(execution) == "failed"
    assert Counter((await ledger.states(execution)).values()) == {"failed": 1, "not_reached": 1, "completed": 2}


@st.composite
def graphs(draw: st.DrawFn) -> dict[int, list[int]]:
    """Steps with what is upstream of each; in any order of numbers, as new steps of a replay have it."""
    count = draw(st.integers(2, 9))
    order = draw(st.permutations(range(1, count + 1)))
    graph: dict[int, list[int]] = {}
    for place, number in enumerate(order):
        upstream = st.lists(st.sampled_from(order[:place]), max_size=3, unique=True) if place else st.just([])
        graph[number] = draw(upstream)
    return graph


def expected(graph: Mapping[int, Sequence[int]], failing: set[int], overridden: set[int]) -> dict[int, str]:
    """What becomes of each step: by definition, step by step."""
    states: dict[int, str] = {}
    while len(states) < len(graph):
        for number, upstream in graph.items():
            if all(one in states or one in overridden for one in upstream):
                stopped = any(states[one] != "completed" for one in upstream if one not in overridden)
                states[number] = "not_reached" if stopped else "failed" if number in failing else "completed"
    return states


async def override(ledger: Ledger, execution: UUID, numbers: set[int]) -> None:
    """Give steps outputs that their consumers take whatever becomes of them."""
    await ledger.connection.execute(
        "UPDATE invocations SET override_outputs = '' WHERE execution_id = $1 AND number = ANY ($2)", execution, numbers
    )
    await ledger.connection.execute(lifecycle.SQL["block"], execution)
    await ledger.connection.execute("DELETE FROM tasks WHERE execution_id = $1", execution)
    await ledger.connection.execute(lifecycle.SQL["insert_tasks"], execution)


async def one_pipeline(planners: Sequence[Ledger], data: st.DataObject) -> None:
    graph = data.draw(graphs())
    failing = set(data.draw(st.lists(st.sampled_from(sorted(graph)), min_size=1, max_size=3)))
    overridden = set(data.draw(st.lists(st.sampled_from(sorted(graph)), max_size=2)))
    turns = data.draw(st.lists(st.sampled_from(TURNS), max_size=12))
    ledger = planners[0]
    await ledger.connection.execute("DELETE FROM tasks")
    execution, session = await ledger.pipeline(graph), await ledger.session()
    await override(ledger, execution, overridden)
    idle = 0
    for which, runs in itertools.chain(turns, itertools.cycle(TURNS)):
        planner = planners[which]
        if runs:
            held = await planner.claim(session, steps=3)
            outcomes = ["failed" if one.number in failing else "completed" for one in held]
            pairs = zip(held, outcomes, strict=True)
            await planner.commit(results=[planner.result(one, outcome) for one, outcome in pairs])
            idle = 0 if held else idle + 1
        else:
            idle = 0 if await planner.mark_unreached() is not None else idle + 1
        all_ended = set((await ledger.states(execution)).values()) <= ENDED
        assert (await ledger.state(execution) in ENDED) == all_ended
        if idle == len(turns) + len(TURNS):
            break
    states = expected(graph, failing, overridden)
    assert await ledger.states(execution) == states
    assert await ledger.state(execution) == ("failed" if "failed" in states.values() else "completed")
    events = await ledger.events(execution)
    assert [event for event, _, _ in events] == list(range(1, len(events) + 1))
    assert Counter(number for _, number, state in events if state in ENDED) == dict.fromkeys([0, *graph], 1)
    row = await ledger.connection.fetchrow("SELECT unfinished, failures FROM executions WHERE id = $1", execution)
    assert row is not None
    assert tuple(row) == (0, Counter(states.values())["failed"])
    assert await tasks(ledger) == 0


async def opened(database: str) -> list[Ledger]:
    planners = [await Ledger.open(database) for _ in range(2)]
    await in_small_parts(planners[0])
    return planners


def test_what_is_marked_is_what_the_oracle_says(database: str) -> None:
    """A failed step stops its descendants and nothing else, and the execution ends when all others have."""
    with asyncio.Runner() as runner:
        planners = runner.run(opened(database))

        @given(st.data())
        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        def each(data: st.DataObject) -> None:
            runner.run(one_pipeline(planners, data))

        try:
            each()
        finally:
            for planner in planners:
                runner.run(planner.connection.close())
