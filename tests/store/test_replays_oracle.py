"""Plans and replays in Postgres against the oracle, through lineages of any depth, and copy on write counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalsegno.errors import DalsegnoError
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store.replay_marks import FEW
from dalsegno_planner.store.replay_request import ReplayRequest
from dalsegno_planner.store.replays import DEEPEST_LINEAGE
from tests.store.graphs import (
    CHANGED,
    RECORDED,
    Database,
    Planned,
    Recorded,
    connect,
    finish,
    own_rows,
    payload,
    plan,
    record,
    replay,
    tasks,
)
from tests.unit.plan_oracle import Expected, Request, Step, expected_plan, graphs, requests


def recorded(step: Step) -> Recorded:
    return Recorded(
        step.id,
        step.name,
        sorted(step.takes),
        sorted(step.after),
        sorted(step.reads),
        "completed" if step.succeeded else "failed",
        code_digest=CHANGED if step.changed else RECORDED,
    )


def request_for(source: Execution, request: Request) -> ReplayRequest:
    mode = Mode(request.mode)
    named = {Mode.FROM: request.chosen, Mode.SKIP: request.skipped}.get(mode, frozenset())
    prefix = "invocation:" if mode is Mode.FROM else ""
    return ReplayRequest(
        execution=str(source.id),
        mode=None if mode in (Mode.OVERRIDES, Mode.CHANGED_CODE) else mode,
        selectors=[prefix + one for one in sorted(named)],
        rerun_changed_code=request.rerun_changed_code,
        inputs={name: payload(2) for name in request.inputs},
        overrides={f"checkpoint.invocation:{one}": payload("X") for one in request.overridden},
        step_input_overrides={one: {"k": payload(2)} for one in request.step_inputs},
    )


async def announce(connection: Database, names: set[str]) -> None:
    """Today's code of every step."""
    await connection.executemany(
        "INSERT INTO definitions VALUES ('default', 'step', 'm', $1, $2, '') ON CONFLICT DO NOTHING",
        [(name, RECORDED) for name in names],
    )


async def planned(
    connection: Database, source: Execution, request: Request, page: int = 3, few: int = FEW
) -> Planned | None:
    try:
        return await plan(connection, request_for(source, request), page, few)
    except DalsegnoError:
        return None


def check(found: Planned | None, expected: Expected, steps: list[Step], suppliers: Mapping[str, str]) -> None:
    assert (found is None) == expected.refused
    if found is None:
        return
    assert found.roots == expected.roots
    assert set(found.affected) == expected.affected
    ids = [step.id for step in steps]
    assert found.affected == sorted(found.affected, key=ids.index), "entries come by number, each once"
    assert found.reused == {one: suppliers[one] for one in ids if one not in expected.affected}
    assert found.counts == (len(expected.roots), len(expected.affected), len(found.reused))


async def check_rows(
    connection: Database, made: Execution, steps: list[Step], request: Request, affected: set[str]
) -> None:
    """A replay's rows are its affected invocations and its deltas, and no more; those of a compacted one are all."""
    rows = await own_rows(connection, made)
    overridden, stale = set(request.overridden), stale_steps(steps, request, affected)
    compacted = await lineage_length(connection, made) == 1
    assert set(rows) == ({step.id for step in steps} if compacted else affected | overridden | stale)
    assert compacted or {one for one, row in rows.items() if row["stale_inputs"]} == stale
    assert await edges(connection, made) == {(one, row["number"]) for row in rows.values() for one in row["upstream"]}
    carried = {step.id for step in steps if step.overridden}
    ready = set()
    for step in steps:
        if step.id in affected:
            row = rows[step.id]
            blocking = (step.takes | step.after) & affected - overridden - carried
            assert (row["state"], row["blocked_by"]) == ("pending", len(blocking))
            assert (row["override_outputs"] is not None) == (step.id in overridden | carried)
            ready |= {row["number"]} if not blocking else set()
        elif step.id in overridden:
            assert rows[step.id]["state"] == "reused"
    assert set(await tasks(connection, made)) == ready
    assert made.state == ("pending" if affected else "completed")


async def lineage_length(connection: Database, execution: Execution) -> int:
    found: int = await connection.fetchval("SELECT count(*) FROM lineage WHERE execution_id = $1", execution.id)
    return found


async def edges(connection: Database, execution: Execution) -> set[tuple[int, int]]:
    rows = await connection.fetch("SELECT upstream, downstream FROM edges WHERE execution_id = $1", execution.id)
    return {(row["upstream"], row["downstream"]) for row in rows}


async def one_lineage(connection: Database, data: st.DataObject, generations: int) -> None:
    steps = data.draw(graphs(8))
    await announce(connection, {step.name for step in steps})
    source = await record(connection, [recorded(step) for step in steps], inputs={"lr": 1, "topic": "x"})
    suppliers = {step.id: str(call_id(source.id, number)) for number, step in enumerate(steps, start=1)}
    depth = 1
    for _ in range(generations):
        request = data.draw(requests(steps))
        expected = expected_plan(steps, request)
        # What is few is planned in memory, and the rest in Postgres: the plans are the same.
        few = data.draw(st.sampled_from((0, 2, FEW)))
        check(await planned(connection, source, request, few=few), expected, steps, suppliers)
        if expected.refused:
            continue
        made = await replay(connection, request_for(source, request), few=few)
        await check_rows(connection, made, steps, request, expected.affected)
        depth = depth + 1 if depth < DEEPEST_LINEAGE else 1
        assert await lineage_length(connection, made) == depth
        failing = data.draw(st.frozensets(st.sampled_from([step.id for step in steps]), max_size=1)) & expected.affected
        await finish(connection, made, failing)
        for number, step in enumerate(steps, start=1):
            if step.id in expected.affected:
                suppliers[step.id] = str(call_id(made.id, number))
        steps = [after_replay(step, request, expected.affected, failing) for step in steps]
        source = made


def stale_steps(steps: list[Step], request: Request, affected: set[str]) -> set[str]:
    """Reused steps that read an overridden parameter."""
    return {step.id for step in steps if step.reads & request.inputs and step.id not in affected}


def after_replay(step: Step, request: Request, affected: set[str], failing: frozenset[str]) -> Step:
    """What the replay recorded of a step. What failed, and is reused because it is overridden, still failed."""
    overridden = step.overridden or step.id in request.overridden
    if step.id in affected:
        return replace(step, succeeded=step.id not in failing, changed=False, overridden=overridden)
    return replace(step, overridden=overridden)


@pytest.mark.parametrize(("generations", "examples"), [(3, 25), (DEEPEST_LINEAGE + 4, 2)], ids=["few", "many"])
def test_replays_of_replays_are_planned_as_the_oracle_says(database: str, generations: int, examples: int) -> None:
    """SEMANTICS §3 on random graphs, for generations of replays, copy on write counted."""
    with asyncio.Runner() as runner:
        connection = runner.run(connect(database))

        @given(st.data())
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        def each(data: st.DataObject) -> None:
            runner.run(one_lineage(connection, data, generations))

        try:
            each()
        finally:
            runner.run(connection.close())
