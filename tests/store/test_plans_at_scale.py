"""Where very much is stored, what is done often reads what it is about, by indexes, and nothing else.

Rows and pages are counted by the server itself, for the statements as they are run, those within functions included.
Where it has `auto_explain` (Debian's 15), the plans are looked at too. ``--rows=1000000`` (``make test-million``) has a
million invocations; what may be read is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dalsegno_planner.core.execution import ExecutionKind, ExecutionState
from dalsegno_planner.core.ids import Number, call_id
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.dispatch.dispatcher import DISPATCH_SETTINGS
from dalsegno_planner.dispatch.recorded import recorded_calls
from dalsegno_planner.store import events, executions, finding, invocations, logs, retention, waits
from dalsegno_planner.store.executions import ExecutionFilter, Known
from dalsegno_planner.store.objects import key_of
from dalsegno_planner.store.released_objects import settle
from dalsegno_planner.store.replay_entries import View, entries
from dalsegno_planner.store.replay_plan import make_plan
from dalsegno_planner.store.replay_request import ReplayRequest
from dalsegno_planner.store.sql import load as load_statements
from tests.postgres import PostgresServer
from tests.store.graphs import PROJECT, Database, finish, payload, replay
from tests.store.ledger import Held, Ledger
from tests.store.scale import CHAIN, OLD, QUEUES, Loaded, Looks, ledger_of, load, looking

DISPATCH = load_statements("dispatch")
BATCH = 50
LATER = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 100


@pytest.fixture(scope="module")
def loaded(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[Loaded]:
    """The database that the tests of this file share; each takes back what it does."""
    name = postgres.create_database(migrated=True)
    yield asyncio.run(load(postgres.dsn(name), request.config.getoption("--rows")))
    postgres.drop_database(name)


@pytest.fixture
async def looks(loaded: Loaded) -> AsyncIterator[Looks]:
    """A connection such as the services have."""
    async with looking(loaded.dsn) as opened:
        yield opened


@pytest.fixture
async def dispatch(loaded: Loaded) -> AsyncIterator[Looks]:
    """A connection such as dispatch has."""
    async with looking(loaded.dsn, DISPATCH_SETTINGS) as opened:
        yield opened


# Dispatch.


async def claimed(ledger: Ledger, steps: int = BATCH) -> list[Held]:
    """Claim as an executor that has just connected."""
    found = await ledger.claim(await ledger.session(), steps=steps, bodies=0)
    assert len(found) == steps
    return found


async def test_a_claim_reads_what_it_claims(dispatch: Looks) -> None:
    async with dispatch.cost() as cost:
        await claimed(ledger_of(dispatch))
    # Executions have their turns: of each that is queued one task is looked at.
    cost.assert_within(rows=10 * BATCH, pages=40 * BATCH)


async def test_results_read_what_they_are_of(dispatch: Looks) -> None:
    ledger = ledger_of(dispatch)
    async with dispatch.cost() as alone:
        held = await claimed(ledger)
    async with dispatch.cost() as cost:
        held = await claimed(ledger)
        committed = await ledger.commit(results=[ledger.result(one) for one in held])
        assert len(committed.durable) == BATCH
    cost.assert_within(rows=alone.rows + 10 * BATCH, pages=alone.pages + 60 * BATCH)


async def test_calls_of_a_body_read_what_they_take(dispatch: Looks) -> None:
    ledger = ledger_of(dispatch)
    async with dispatch.cost() as cost:
        await ledger.flow()
        (body,) = await ledger.claim(await ledger.session(), steps=0, bodies=1)
        for number in range(1, 6):
            await ledger.commit(calls=[ledger.call(body, number, upstream=[number - 1] if number > 1 else [])])
        await ledger.commit(calls=[ledger.call(body, 6, "submitted", upstream=[5])])
        await ledger.commit(ends=[ledger.end(body)])
    cost.assert_within(rows=150, pages=1_500)


async def test_what_a_body_finds_recorded_is_read_by_keys(dispatch: Looks) -> None:
    ledger = ledger_of(dispatch)
    async with dispatch.cost() as cost:
        execution_id = await ledger.flow()
        (body,) = await ledger.claim(await ledger.session(), steps=0, bodies=1)
        await ledger.commit(calls=[ledger.call(body, number) for number in range(1, BATCH + 1)])
        pages = [page async for page in recorded_calls(ledger.connection, execution_id, BATCH)]
        assert sum(len(page.calls) for page in pages) == BATCH
    cost.assert_within(rows=15 * BATCH, pages=100 * BATCH)


async def test_what_many_wait_for_is_told_to_a_thousand_at_a_time(dispatch: Looks) -> None:
    ledger = ledger_of(dispatch)
    async with dispatch.cost() as cost:
        execution_id = await ledger.fan(3_000)
        task = await ledger.connection.fetchrow("SELECT epoch FROM tasks WHERE execution_id = $1", execution_id)
        assert task is not None
        session = await ledger.session()
        await ledger.connection.execute(
            "UPDATE tasks SET session_id = $2 WHERE execution_id = $1", execution_id, session
        )
        await ledger.commit(results=[ledger.result(Held(execution_id, 1, task["epoch"], session))])
        assert await ledger.promote() == 1_000
    # Of which a fan of 3,000 is written.
    cost.assert_within(rows=30_000, pages=150_000)


async def test_what_is_done_now_and_then_reads_what_is_due(dispatch: Looks) -> None:
    ledger = ledger_of(dispatch)
    async with dispatch.cost() as cost:
        session = await ledger.session()
        (held,) = await ledger.claim(session, steps=1, bodies=0)
        token = [(held.execution_id, held.number, held.epoch, held.session_id)]
        await ledger.extend([session])
        assert await ledger.connection.fetch(DISPATCH["mark_running"], token)
        assert await ledger.connection.fetch(DISPATCH["record_progress"], token, [held.number], [b"some"])
        await ledger.connection.execute(DISPATCH["release_due"])
        await ledger.connection.fetchval(DISPATCH["next_due"], 1.0)
        assert await ledger.connection.fetch(DISPATCH["lost_tasks"]) == []
        assert await ledger.connection.fetch(DISPATCH["lost_by_session"], token) == []
        assert await ledger.promote() is None
        assert await waits.expire_waits(ledger.connection) == []
        assert await executions.time_out(ledger.connection) == []
        closed = await ledger.connection.fetchrow(DISPATCH["close_sessions"], [session])
        assert closed is not None
        assert closed["returned"] == 1
    cost.assert_within(rows=3 * QUEUES, pages=30 * QUEUES)


async def test_lines_of_logs_are_added_and_read_by_keys(looks: Looks, loaded: Loaded) -> None:
    """Of an execution that has written a line for each of the million, too."""
    written, now = loaded.queued[-1], datetime.now(UTC)
    lines = [logs.LogRow(written, now, number, "s", 1, "info", "print", "said", 0) for number in range(PAGE)]
    async with looks.cost() as cost:
        await logs.insert(looks.connection, lines)
        middle = logs.LogPlace(OLD + timedelta(seconds=loaded.rows // 2), 0)
        page, following = await logs.list_page(looks.connection, written, after=middle, numbers=None, limit=PAGE)
        assert len(page) == PAGE
        assert following is not None
    cost.assert_within(rows=5 * PAGE, pages=20 * PAGE)


async def test_outcomes_are_looked_up(dispatch: Looks, loaded: Loaded) -> None:
    numbers = list(range(loaded.middle, loaded.middle + BATCH))
    async with dispatch.cost() as cost:
        rows = await dispatch.connection.fetch(DISPATCH["outcomes"], [loaded.large] * BATCH, numbers)
        assert len(rows) == BATCH
    cost.assert_within(rows=BATCH, pages=8 * BATCH)


# Plans and replays, of which a chain is affected.


def of_a_chain(loaded: Loaded, how: str) -> ReplayRequest:
    """A request that affects the chain in the middle, or what follows in it."""
    link = loaded.middle
    source = str(loaded.large)
    match how:
        case "invocation":
            return ReplayRequest(source, PROJECT, mode=Mode.FROM, selectors=(f"invocation:link_{link}",))
        case "call":
            return ReplayRequest(source, PROJECT, mode=Mode.FROM, selectors=(f"call:{call_id(loaded.large, link)}",))
        case "override":
            return ReplayRequest(source, PROJECT, overrides={f"checkpoint.link_{link}": payload(2)})
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize("how", ["invocation", "call", "override"])
async def test_a_plan_reads_what_it_affects(looks: Looks, loaded: Loaded, how: str) -> None:
    async with looks.cost() as cost:
        made = await make_plan(looks.connection, of_a_chain(loaded, how))
        listed, _ = await entries(looks.connection, made, View.AFFECTED, 0, CHAIN)
        assert CHAIN - 1 <= len(listed) == made.summary.affected_count <= CHAIN
    cost.assert_within(rows=10 * CHAIN, pages=50 * CHAIN)


async def test_a_page_of_what_is_reused_reads_a_page(looks: Looks, loaded: Loaded) -> None:
    async with looks.cost() as cost:
        await make_plan(looks.connection, of_a_chain(loaded, "invocation"))
    async with looks.cost() as with_page:
        made = await make_plan(looks.connection, of_a_chain(loaded, "invocation"))
        listed, following = await entries(looks.connection, made, View.REUSED, loaded.rows // 3, PAGE)
        assert len(listed) == PAGE
        assert following is not None
    with_page.assert_within(rows=cost.rows + 5 * PAGE, pages=cost.pages + 20 * PAGE)


@pytest.mark.parametrize("how", ["invocation", "override"])
async def test_a_replay_writes_and_reads_what_it_affects(looks: Looks, loaded: Loaded, how: str) -> None:
    async with looks.cost() as cost:
        made = await replay(looks.connection, of_a_chain(loaded, how))
        assert made.invocation_count == loaded.rows
    cost.assert_within(rows=25 * CHAIN, pages=120 * CHAIN)


async def test_a_replay_of_a_replay_does_so_too(looks: Looks, loaded: Loaded) -> None:
    async with looks.cost() as cost:
        first = await replay(looks.connection, of_a_chain(loaded, "invocation"))
        await finish(looks.connection, first)
        second = await replay(looks.connection, replace(of_a_chain(loaded, "override"), execution=str(first.id)))
        assert second.invocation_count == loaded.rows
    cost.assert_within(rows=80 * CHAIN, pages=400 * CHAIN)


async def test_a_replay_of_a_flow_does_so_too(looks: Looks, loaded: Loaded) -> None:
    """The waits of a flow are asked again, so all of them are looked for."""
    async with looks.cost() as cost:
        await looks.connection.execute("UPDATE executions SET kind = 'flow' WHERE id = $1", loaded.large)
        made = await replay(looks.connection, of_a_chain(loaded, "invocation"))
        assert made.kind is ExecutionKind.FLOW
    cost.assert_within(rows=25 * CHAIN, pages=120 * CHAIN)


# What clients read.

READS: dict[str, Callable[[Database, Loaded], Awaitable[object]]] = {
    "get": lambda connection, loaded: executions.get(connection, loaded.large),
    "by name": lambda connection, loaded: finding.find(connection, "large", PROJECT),
    "by the end of the ID": lambda connection, loaded: finding.find(connection, loaded.large.hex[-10:], PROJECT),
    "changed": lambda connection, loaded: executions.changed(
        connection,
        [Known(one, ExecutionState.PENDING, Number(loaded.middle)) for one in (loaded.large, *loaded.queued[:PAGE])],
    ),
    "why it does not go on": lambda connection, loaded: executions.unserved_routes(connection, loaded.queued[:1]),
    "events": lambda connection, loaded: events.after(connection, loaded.large, loaded.rows // 2, PAGE),
    "a page of invocations": lambda connection, loaded: invocations.list_page(
        connection, loaded.large, ExecutionKind.PIPELINE, loaded.rows // 2, PAGE
    ),
    "some invocations": lambda connection, loaded: invocations.get_some(
        connection, loaded.large, ExecutionKind.PIPELINE, range(loaded.middle, loaded.middle + PAGE)
    ),
    "outputs": lambda connection, loaded: invocations.outputs(
        connection, loaded.large, range(loaded.middle, loaded.middle + PAGE)
    ),
    "attempts": lambda connection, loaded: invocations.list_attempts(connection, loaded.large, 0),
    "waits": lambda connection, loaded: waits.list_page(
        connection, loaded.ended[0], after=0, pending_only=False, limit=PAGE
    ),
    "a page of executions": lambda connection, loaded: executions.list_page(
        connection, ExecutionFilter(project=PROJECT), loaded.ended[0], PAGE
    ),
    "executions of a flow": lambda connection, loaded: executions.list_page(
        connection, ExecutionFilter(project=PROJECT, flow="large"), None, PAGE
    ),
    "open executions": lambda connection, loaded: executions.list_page(
        connection, ExecutionFilter(project=PROJECT, states=[ExecutionState.RUNNING]), None, PAGE
    ),
    "replays of an execution": lambda connection, loaded: executions.list_page(
        connection, ExecutionFilter(project=PROJECT, source_id=loaded.large), None, PAGE
    ),
}


@pytest.mark.parametrize("what", READS)
async def test_reading_reads_what_is_asked_for(looks: Looks, loaded: Loaded, what: str) -> None:
    async with looks.cost() as cost:
        await READS[what](looks.connection, loaded)
    cost.assert_within(rows=5 * PAGE, pages=15 * PAGE)


# What ends, and what goes.


async def test_a_cancel_reads_what_it_cancels(looks: Looks, loaded: Loaded) -> None:
    steps = loaded.ready // QUEUES
    async with looks.cost() as cost:
        assert await executions.cancel(looks.connection, loaded.queued[0], b"")
    cost.assert_within(rows=10 * steps, pages=60 * steps)


async def test_retention_finds_and_deletes_by_keys(looks: Looks, loaded: Loaded) -> None:
    async with looks.cost() as cost:
        page = await retention.expired(looks.connection, LATER, retention.FIRST, PAGE)
        assert set(page) < set(loaded.ended)
        following = await retention.expired(looks.connection, LATER, page[-1], PAGE)
        assert not set(page) & set(following)
        assert await retention.forget(looks.connection, page[0], LATER)
        while await retention.sweep(looks.connection, PAGE):
            pass
    cost.assert_within(rows=20 * PAGE, pages=60 * PAGE)


async def test_a_large_execution_is_deleted_a_little_at_a_time(looks: Looks, loaded: Loaded) -> None:
    async with looks.cost() as cost:
        await looks.connection.execute("INSERT INTO garbage (execution_id) VALUES ($1)", loaded.large)
        for _ in range(3):
            assert await retention.sweep(looks.connection, PAGE) == PAGE
    cost.assert_within(rows=20 * PAGE, pages=60 * PAGE)


async def test_whether_anything_has_an_object_is_looked_up(looks: Looks, loaded: Loaded) -> None:
    keys = [key_of(str(number).encode()) for number in range(PAGE)]
    await looks.connection.execute(
        "UPDATE invocations SET outputs = $3 WHERE execution_id = $1 AND number = $2",
        loaded.large, loaded.middle, keys[0].encode(),
    )  # fmt: skip
    await looks.connection.execute("INSERT INTO released_objects (key) SELECT unnest($1::text[])", keys)
    unused: set[str] = set()

    async def remove(found: Collection[str], before: datetime) -> Collection[str]:
        unused.update(found)
        return ()

    async with looks.cost() as cost:
        assert await settle(looks.connection, timedelta(0), PAGE, remove) == (PAGE, PAGE - 1)
    assert unused == set(keys[1:])
    cost.assert_within(rows=10 * PAGE, pages=40 * PAGE)
