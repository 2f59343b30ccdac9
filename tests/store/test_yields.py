"""The order in which bodies are given futures: recorded with their calls, and read through lineages."""

from __future__ import annotations

from uuid import UUID

from dalsegno_planner.dispatch.recorded import recorded_calls
from dalsegno_planner.store import deletion
from tests.store.ledger import Held, Ledger


async def body_of(ledger: Ledger, execution: UUID, calls: int) -> Held:
    """The body of a flow that has made some calls."""
    session = await ledger.session()
    (body,) = [held for held in await ledger.claim(session) if held.execution_id == execution]
    await ledger.commit(calls=[ledger.call(body, number) for number in range(1, calls + 1)])
    return body


async def places(ledger: Ledger, execution: UUID) -> dict[int, int]:
    """What a body finds recorded: the place of each call that has one."""
    pages = [page async for page in recorded_calls(ledger.connection, execution, 10)]
    # Of many calls it is a cursor that reads them.
    assert pages == [page async for page in recorded_calls(ledger.connection, execution, 1_000_000)]
    return {call.number: call.yielded for page in pages for call in page.calls if call.yielded}


async def reader(ledger: Ledger, *sources: tuple[UUID, int]) -> UUID:
    """An execution that reads from others, the nearest first, up to a number of each, as replays do."""
    execution = await ledger.flow()
    await ledger.connection.executemany(
        "INSERT INTO lineage VALUES ($1, $2, $3, $4)",
        [(execution, depth, source, limit) for depth, (source, limit) in enumerate(sources, start=1)],
    )
    return execution


async def test_the_order_is_recorded_with_the_next_call_and_the_end(ledger: Ledger) -> None:
    execution = await ledger.flow()
    body = await body_of(ledger, execution, 3)
    one, two = ledger.call(body, 4, yields={1: 2}), ledger.call(body, 5, yields={1: 2, 2: 3})
    await ledger.commit(calls=[one, two])
    assert await places(ledger, execution) == {2: 1, 3: 2}
    await ledger.commit(ends=[ledger.end(body, yields={3: 1})])
    assert await places(ledger, execution) == {2: 1, 3: 2, 1: 3}


async def test_a_fenced_body_records_no_order(ledger: Ledger) -> None:
    execution = await ledger.flow()
    body = await body_of(ledger, execution, 2)
    await ledger.commit(returned=[body])
    assert (await ledger.commit(calls=[ledger.call(body, 3, yields={1: 1})])).durable == set()
    assert (await ledger.commit(ends=[ledger.end(body, yields={1: 1})])).durable == set()
    assert await places(ledger, execution) == {}


async def test_a_replay_reads_the_order_of_its_source_but_for_its_own_places(ledger: Ledger) -> None:
    source = await ledger.flow()
    body = await body_of(ledger, source, 4)
    await ledger.commit(ends=[ledger.end(body, yields={1: 2, 2: 1, 3: 4})])
    replay = await reader(ledger, (source, 4))
    assert await places(ledger, replay) == {2: 1, 1: 2}, "what the source got afterwards is not seen"
    body = await body_of(ledger, replay, 1)
    await ledger.commit(ends=[ledger.end(body, yields={2: 3})])
    assert await places(ledger, replay) == {2: 1, 3: 2}
    assert await places(ledger, await reader(ledger, (replay, 5), (source, 4))) == {2: 1, 3: 2}
    assert await ledger.connection.fetchval("SELECT count(*) FROM yields WHERE execution_id = $1", replay) == 1


async def test_an_order_is_deleted_with_its_execution(ledger: Ledger) -> None:
    execution = await ledger.flow()
    body = await body_of(ledger, execution, 1)
    await ledger.commit(ends=[ledger.end(body, yields={1: 1})])
    await deletion.delete(ledger.connection, execution)
    assert await ledger.connection.fetchval("SELECT count(*) FROM yields") == 0
