"""The invariants of DESIGN §4, in the function that every commit is."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from dalsegno_planner.dispatch.composites import TaskToken
from tests.store.ledger import QUERIES, WAITS_FOR_THIS, Committed, Held, Ledger


async def test_a_chain_runs_to_its_end_and_its_events_have_no_gaps(ledger: Ledger) -> None:
    execution = await ledger.pipeline({1: [], 2: [1], 3: [2]})
    session = await ledger.session()
    (first,) = await ledger.claim(session)
    step = await ledger.commit(results=[ledger.result(first)], claims=[(session, 5, 5)])
    assert [held.number for held in step.claimed] == [2], "a successor is claimed in the round trip that frees it"
    step = await ledger.commit(results=[ledger.result(step.claimed[0])], claims=[(session, 5, 5)])
    step = await ledger.commit(results=[ledger.result(step.claimed[0])], claims=[(session, 5, 5)])
    assert step.moved == [execution]
    assert await ledger.state(execution) == "completed"
    assert [event for event, _, _ in await ledger.events(execution)] == [1, 2, 3, 4, 5]
    assert (await ledger.events(execution))[-1] == (5, 0, "completed")


async def test_two_producers_in_one_batch_free_their_consumer_once(ledger: Ledger) -> None:
    await ledger.pipeline({1: [], 2: [], 3: [1, 2]})
    session = await ledger.session()
    producers = await ledger.claim(session)
    step = await ledger.commit(results=[ledger.result(held) for held in producers], claims=[(session, 5, 0)])
    assert [held.number for held in step.claimed] == [3]
    assert await ledger.claim(session) == []


async def test_credit_bounds_what_is_claimed_per_kind(ledger: Ledger) -> None:
    await ledger.pipeline({number: [] for number in range(1, 10)})
    for _ in range(3):
        await ledger.flow()
    session = await ledger.session()
    claimed = await ledger.claim(session, steps=4, bodies=2)
    assert sorted(held.number == 0 for held in claimed) == [False] * 4 + [True] * 2


async def test_no_task_is_given_to_two_sessions(ledger: Ledger) -> None:
    await ledger.pipeline({number: [] for number in range(1, 10)})
    one, two = await ledger.session(), await ledger.session()
    step = await ledger.commit(claims=[(one, 6, 0), (two, 6, 0)])
    assert sorted(held.number for held in step.claimed) == list(range(1, 10))
    assert sum(held.session_id == one for held in step.claimed) == 6


async def test_a_lease_that_runs_out_once_a_look_has_begun_goes_on(ledger: Ledger, database: str) -> None:
    """A planner that stands still in the middle of the look has not heard who lives."""
    session = await ledger.session()
    planner = await Ledger.open(database)
    async with planner.connection.transaction():
        await planner.connection.fetchval(QUERIES["clock"])
        await ledger.connection.execute("UPDATE sessions SET expires_at = clock_timestamp()")
        looked = await planner.connection.fetchrow(QUERIES["close_sessions"], None)
    assert looked is not None
    assert looked["closed"] == 0
    assert await ledger.connection.fetchval("SELECT id FROM sessions") == session
    await planner.connection.close()


async def test_a_late_report_of_a_lost_lease_changes_nothing(ledger: Ledger) -> None:
    execution = await ledger.pipeline({1: []})
    slow, quick = await ledger.session(lease=-1), await ledger.session()
    (lost,) = await ledger.claim(slow)
    await ledger.connection.fetchrow("SELECT * FROM close_sessions(NULL)")
    (won,) = await ledger.claim(quick)
    late = ledger.result(lost)
    step = await ledger.commit(results=[late])
    assert step.durable == set()
    assert await ledger.states(execution) == {1: "pending"}
    accepted = ledger.result(won)
    assert (await ledger.commit(results=[accepted])).durable == {accepted[0]}
    assert (await ledger.commit(results=[late])).durable == set()


async def test_what_may_only_have_waited_beside_what_brings_executors_down_is_not_given_up_with_it(
    ledger: Ledger,
) -> None:
    await ledger.pipeline({1: [], 2: []})
    given_up = []
    for _ in range(15):
        runs, waits = await ledger.claim(await ledger.session(lease=-1))
        token = TaskToken(runs.execution_id, runs.number, runs.epoch, runs.session_id)
        await ledger.connection.fetch(QUERIES["mark_running"], [token])
        await ledger.connection.fetchrow(QUERIES["close_sessions"], None)
        given_up.append([row["number"] for row in await ledger.connection.fetch(QUERIES["lost_tasks"])])
        assert (runs.number, waits.number) == (1, 2)
    assert given_up == [[]] * 4 + [[1]] * 10 + [[1, 2]]


async def test_a_repeat_with_the_token_that_won_is_durable(ledger: Ledger) -> None:
    execution = await ledger.pipeline({1: [], 2: [1]})
    session = await ledger.session()
    (held,) = await ledger.claim(session)
    report = ledger.result(held)
    assert (await ledger.commit(results=[report])).durable == {report[0]}
    assert (await ledger.commit(results=[report])).durable == {report[0]}
    assert len(await ledger.claim(session)) == 1, "the successor was freed once"
    assert await ledger.states(execution) == {1: "completed", 2: "pending"}


@pytest.mark.semantics("7", "In a pipeline a failed step stops only its descendants")
async def test_a_failure_stops_its_descendants_only(ledger: Ledger) -> None:
    execution = await ledger.pipeline({1: [], 2: [1], 3: [2], 4: []})
    session = await ledger.session()
    bad, good = await ledger.claim(session)
    assert (await ledger.commit(results=[ledger.result(bad, "failed")])).moved == []
    assert await ledger.states(execution) == {1: "failed", 2: "not_reached", 3: "not_reached", 4: "pending"}
    assert (await ledger.commit(results=[ledger.result(good)])).moved == [execution]
    assert await ledger.state(execution) == "failed"
    failure = await ledger.connection.fetchval("SELECT failure FROM executions WHERE id = $1", execution)
    assert failure == b"\x12\x04oops"


async def test_a_retry_is_claimed_again_when_it_is_due_and_its_attempt_is_kept(ledger: Ledger) -> None:
    execution = await ledger.pipeline({1: []})
    session = await ledger.session()
    (held,) = await ledger.claim(session)
    report = ledger.result(held, "retry", delay=3600)
    step = await ledger.commit(results=[report], claims=[(session, 1, 0)])
    assert (step.durable, step.claimed) == ({report[0]}, [])
    await ledger.connection.execute("UPDATE tasks SET available_at = '-infinity'")
    step = await ledger.commit(claims=[(session, 1, 0)])
    assert (step.claimed[0].epoch, step.rows[0]["attempt"]) == (2, 2)
    await ledger.commit(results=[ledger.result(step.claimed[0])])
    attempts = await ledger.connection.fetch("SELECT attempt FROM attempts WHERE execution_id = $1", execution)
    assert [row["attempt"] for row in attempts] == [1]


async def test_what_an_executor_does_not_hold_when_it_comes_back_goes_to_others(ledger: Ledger) -> None:
    await ledger.pipeline({1: [], 2: []})
    session = await ledger.session()
    kept, forgotten = await ledger.claim(session)
    row = await ledger.connection.fetchrow(
        "SELECT * FROM open_session($1, 'worker', 'default', '{}', 60, $2)",
        session,
        [(kept.execution_id, kept.number, kept.epoch, session), (kept.execution_id, 9, 1, session)],
    )
    assert row is not None
    assert [token["number"] for token in row["lost"]] == [9]
    other = await ledger.session()
    assert [held.number for held in await ledger.claim(other)] == [forgotten.number]


@pytest.mark.parametrize("between", ["nothing", "its lease has run out"])
async def test_an_older_stream_claims_nothing(ledger: Ledger, between: str) -> None:
    await ledger.pipeline({1: []})
    session = await ledger.session()
    older = await ledger.generation(session)
    if between == "its lease has run out":
        await ledger.connection.fetchrow(QUERIES["close_sessions"], [session])
    await ledger.session(key=session)
    assert (await ledger.commit(claims=[(session, 1, 0)], generation=older)).claimed == []
    assert len((await ledger.commit(claims=[(session, 1, 0)])).claimed) == 1


@pytest.mark.parametrize("ended_by", ["reopening", "closing"])
async def test_who_ends_a_session_finds_what_is_claimed_for_it_at_that_moment(
    ledger: Ledger, database: str, ended_by: str
) -> None:
    """Otherwise the task would be leased to a session that is no more, or that does not know of it: for ever."""
    execution = await ledger.pipeline({1: []})
    session = await ledger.session()
    other = await Ledger.open(database)
    async with ledger.connection.transaction():
        assert len((await ledger.commit(claims=[(session, 1, 0)])).claimed) == 1
        ending: asyncio.Future[Any]
        if ended_by == "reopening":
            ending = asyncio.ensure_future(other.session(key=session))
        else:
            ending = asyncio.ensure_future(other.connection.fetchrow(QUERIES["close_sessions"], [session]))
        # It waits for this transaction, or has ended too soon: a backend that waits for a lock says so.
        while not ending.done() and not await ledger.connection.fetchval(WAITS_FOR_THIS):
            pass
    await ending
    holder = await ledger.connection.fetchrow("SELECT session_id FROM tasks WHERE execution_id = $1", execution)
    assert holder is not None
    assert holder["session_id"] is None
    await other.connection.close()


async def test_a_claim_waits_for_who_reopens_its_session_and_finds_another_stream(
    ledger: Ledger, database: str
) -> None:
    """A weaker lock would wait as well, and then go by the generation from before."""
    await ledger.pipeline({1: []})
    session = await ledger.session()
    older = await ledger.generation(session)
    other = await Ledger.open(database)
    async with ledger.connection.transaction():
        await ledger.session(key=session)
        claiming = asyncio.ensure_future(other.commit(claims=[(session, 1, 0)], generation=older))
        while not claiming.done() and not await ledger.connection.fetchval(WAITS_FOR_THIS):
            pass
    assert (await claiming).claimed == []
    await other.connection.close()


async def _committed_behind_a_sign(ledger: Ledger, other: Ledger, held: Held, **what: Any) -> Committed:
    """Commit something of a task while another connection has written that it runs, and has not committed."""
    async with ledger.connection.transaction():
        await ledger.connection.execute("UPDATE tasks SET running = true WHERE execution_id = $1", held.execution_id)
        commit = asyncio.ensure_future(other.commit(**what))
        while not commit.done() and not await ledger.connection.fetchval(WAITS_FOR_THIS):
            pass
    return await commit


async def test_a_result_that_waits_for_the_sign_that_its_task_runs_is_durable(ledger: Ledger, database: str) -> None:
    await ledger.pipeline({1: [], 2: [1]})
    session = await ledger.session()
    (held,) = await ledger.claim(session)
    other = await Ledger.open(database)
    report = other.result(held)
    made = await _committed_behind_a_sign(ledger, other, held, results=[report], claims=[(session, 1, 0)])
    assert made.durable == {report.item}
    assert [one.number for one in made.claimed] == [2]
    await other.connection.close()


async def test_a_task_that_is_given_back_behind_the_sign_that_it_runs_is_ready(ledger: Ledger, database: str) -> None:
    await ledger.pipeline({1: []})
    session = await ledger.session()
    (held,) = await ledger.claim(session)
    other = await Ledger.open(database)
    made = await _committed_behind_a_sign(ledger, other, held, returned=[held], claims=[(session, 1, 0)])
    assert [one.number for one in made.claimed] == [1]
    await other.connection.close()


async def test_a_goodbye_ends_no_newer_stream_of_the_executor(ledger: Ledger) -> None:
    session = await ledger.session()
    older = await ledger.generation(session)
    await ledger.session(key=session)
    for generation, closed in ((older, 0), (await ledger.generation(session), 1)):
        row = await ledger.connection.fetchrow(QUERIES["close_stream"], session, generation)
        assert row is not None
        assert row["closed"] == closed


async def test_returned_tasks_are_given_again_with_a_new_token(ledger: Ledger) -> None:
    await ledger.pipeline({1: []})
    session = await ledger.session()
    (held,) = await ledger.claim(session)
    step = await ledger.commit(returned=[held], claims=[(session, 1, 0)])
    assert [(again.number, again.epoch) for again in step.claimed] == [(1, 2)]
    assert (await ledger.commit(results=[ledger.result(held)])).durable == set()


async def test_a_flow_records_its_calls_and_its_return(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    assert await ledger.state(execution) == "running"
    call = ledger.call(body, 1)
    assert (await ledger.commit(calls=[call])).durable == {call[0]}
    assert (await ledger.commit(calls=[call])).durable == {call[0]}, "a repeat is durable"
    second = ledger.call(body, 2, upstream=[1])
    end = ledger.end(body)
    step = await ledger.commit(calls=[second], ends=[end])
    assert step.durable == {second[0], end[0]}
    assert await ledger.state(execution) == "completed"
    assert (await ledger.commit(ends=[end])).durable == {end[0]}
    assert (await ledger.commit(calls=[second])).durable == {second[0]}
    assert (await ledger.commit(calls=[ledger.call(body, 3)])).durable == set()
    assert await ledger.states(execution) == {1: "completed", 2: "completed"}
    counts = await ledger.connection.fetchrow(
        "SELECT invocation_count, next_number FROM executions WHERE id = $1", execution
    )
    assert tuple(counts or ()) == (2, 3)
    assert await ledger.claim(session) == []


async def test_a_body_that_was_given_to_another_executor_is_fenced(ledger: Ledger) -> None:
    execution, _, body = await _flow_with_body(ledger, lease=-1)
    await ledger.connection.fetchrow("SELECT * FROM close_sessions(NULL)")
    other = await ledger.session()
    (again,) = await ledger.claim(other)
    assert again.epoch == body.epoch + 1
    step = await ledger.commit(calls=[ledger.call(body, 1)], ends=[ledger.end(body)])
    assert step.durable == set()
    assert await ledger.states(execution) == {}
    assert await ledger.state(execution) == "running"


async def test_submitted_calls_go_to_executors_and_their_outcome_to_the_body(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    step = await ledger.commit(
        calls=[ledger.call(body, 1, "submitted"), ledger.call(body, 2, "submitted", upstream=[1])],
        claims=[(session, 5, 0)],
    )
    (first,) = step.claimed
    step = await ledger.commit(results=[ledger.result(first)], claims=[(session, 5, 0)])
    assert [(r["session_id"], r["number"], r["epoch"]) for r in step.resolved] == [(session, 1, body.epoch)]
    (second,) = step.claimed
    assert second.number == 2
    step = await ledger.commit(results=[ledger.result(second, "failed")])
    assert [(r["number"], r["failure"]) for r in step.resolved] == [(2, b"\x12\x04oops")]
    assert await ledger.states(execution) == {1: "completed", 2: "failed"}


async def test_a_call_that_is_submitted_again_keeps_count_of_its_attempts(ledger: Ledger) -> None:
    """Its acknowledgement was lost: the planner, or the database, has died right after the commit."""
    _, session, body = await _flow_with_body(ledger)
    (first,) = (await ledger.commit(calls=[ledger.call(body, 1, "submitted")], claims=[(session, 1, 0)])).claimed
    before = await ledger.commit(results=[ledger.result(first, "retry")], claims=[(session, 1, 0)])
    await ledger.commit(results=[ledger.result(before.claimed[0], "retry")])
    await ledger.commit(calls=[ledger.call(body, 1, "submitted")])
    step = await ledger.commit(claims=[(session, 1, 0)])
    assert step.rows[0]["attempt"] == before.rows[0]["attempt"] + 1


async def test_a_submitted_call_whose_upstream_fails_is_not_reached_and_the_body_is_told(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    calls = [ledger.call(body, 1, "submitted"), ledger.call(body, 2, "submitted", upstream=[1])]
    (first,) = (await ledger.commit(calls=calls, claims=[(session, 5, 0)])).claimed
    step = await ledger.commit(results=[ledger.result(first, "failed")])
    assert {r["number"]: r["failure"] for r in step.resolved} == {1: b"\x12\x04oops", 2: b"\x12\x04oops"}
    assert await ledger.states(execution) == {1: "failed", 2: "not_reached"}


async def test_what_an_earlier_replay_overrides_stays_overridden(ledger: Ledger) -> None:
    earlier, later = await ledger.flow(), await ledger.flow()
    await ledger.connection.execute("UPDATE executions SET source_id = $2 WHERE id = $1", later, earlier)
    await ledger.connection.execute("INSERT INTO lineage VALUES ($1, 1, $2, 100)", later, earlier)
    await ledger.connection.execute(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module,"
        " overridden_inputs, override_outputs) VALUES ($1, 1, 1, 's_1', 's', 'step', 'reused', 'm', '{x}', 'given')",
        earlier,
    )
    bodies = await ledger.claim(await ledger.session(), steps=0)
    (body,) = [one for one in bodies if one.execution_id == later]
    await ledger.commit(calls=[ledger.call(body, 1), ledger.call(body, 2)])
    rows = await ledger.connection.fetch(
        "SELECT overridden_inputs, override_outputs FROM invocations WHERE execution_id = $1 ORDER BY number", later
    )
    assert [tuple(row) for row in rows] == [(["x"], b"given"), ([], None)]


async def test_a_started_call_is_overwritten_by_its_outcome_and_by_no_other(ledger: Ledger) -> None:
    execution, _, body = await _flow_with_body(ledger)
    await ledger.commit(calls=[ledger.call(body, 1, "started")])
    assert await ledger.states(execution) == {1: "pending"}
    await ledger.commit(calls=[ledger.call(body, 1)])
    await ledger.commit(calls=[ledger.call(body, 1, "started")])
    assert await ledger.states(execution) == {1: "completed"}


async def test_a_body_that_waits_for_what_it_never_asked_is_run_again(ledger: Ledger) -> None:
    execution, session = await ledger.flow(), await ledger.session()
    (body,) = await ledger.claim(session)
    ended = await ledger.commit(ends=[ledger.end(body, "suspended", waits=[7])], claims=[(session, 0, 1)])
    assert (ended.requeued, await ledger.state(execution)) == (True, "running")
    assert [held.number for held in ended.claimed] == [0]


async def test_a_suspended_flow_waits_with_no_task(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    end = ledger.end(body, "suspended", waits=[1])
    step = await ledger.commit(calls=[ledger.call(body, 1, "wait")], ends=[end], claims=[(session, 0, 5)])
    assert end[0] in step.durable
    assert step.claimed == []
    assert await ledger.state(execution) == "waiting"
    assert await ledger.connection.fetchval("SELECT count(*) FROM tasks") == 0
    epoch = await ledger.connection.fetchval("SELECT body_epoch FROM executions WHERE id = $1", execution)
    assert epoch == body.epoch


async def test_a_flow_with_a_running_step_waits_when_that_has_ended(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    calls = [ledger.call(body, 1, "submitted"), ledger.call(body, 2, "wait")]
    (step,) = (await ledger.commit(calls=calls, claims=[(session, 5, 0)])).claimed
    await ledger.commit(ends=[ledger.end(body, "suspended", waits=[2])])
    assert await ledger.state(execution) == "running"
    await ledger.commit(results=[ledger.result(step)])
    assert await ledger.state(execution) == "waiting"
    events = await ledger.events(execution)
    assert [event for event, _, _ in events] == list(range(1, len(events) + 1))
    assert events[-1][1:] == (0, "waiting")


async def test_a_wait_that_is_answered_while_the_body_suspends_is_not_missed(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    await ledger.commit(calls=[ledger.call(body, 1, "wait")])
    await ledger.connection.execute("UPDATE waits SET state = 'answered'")
    end = ledger.end(body, "suspended", waits=[1])
    step = await ledger.commit(ends=[end], claims=[(session, 0, 5)])
    assert end[0] in step.durable
    assert [(held.number, held.epoch) for held in step.claimed] == [(0, body.epoch + 1)]
    assert await ledger.state(execution) == "running"


async def test_a_body_that_returns_leaves_nothing_running(ledger: Ledger) -> None:
    execution, session, body = await _flow_with_body(ledger)
    calls = [ledger.call(body, 1, "submitted"), ledger.call(body, 2, "submitted", upstream=[1])]
    (first,) = (await ledger.commit(calls=calls, claims=[(session, 5, 0)])).claimed
    await ledger.commit(ends=[ledger.end(body)])
    assert (await ledger.commit(results=[ledger.result(first)])).durable == set()
    assert await ledger.states(execution) == {1: "cancelled", 2: "cancelled"}


async def _flow_with_body(ledger: Ledger, lease: float = 3600.0) -> tuple[UUID, UUID, Held]:
    execution = await ledger.flow()
    session = await ledger.session(lease=lease)
    (body,) = await ledger.claim(session)
    return execution, session, body
