"""Runs a scenario for real, and holds everything that can be seen of it against what has to come."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import asyncpg

from dalsegno import Client
from dalsegno.client.executions import Execution
from dalsegno.client.plans import Plan
from dalsegno.errors import ExecutionError
from tests.e2e.oracle.plain import Overrides, PlainCall, PlainRun, leaves
from tests.e2e.oracle.programs import generated_flow, generated_pipeline, ran
from tests.e2e.oracle.scenarios import INPUTS, Asked, Scenario, planned, stale_calls

TIMEOUT_S = 60


class Tables:
    """Looks into the engine's database."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def rows(self, sql: str, *values: object) -> list[Mapping[str, Any]]:
        async def fetched() -> list[Mapping[str, Any]]:
            return [dict(row) for row in await self._connection.fetch(sql, *values)]

        return self._runner.run(fetched())

    def counts(self) -> dict[str, int]:
        """Return how many rows every table has."""
        names = [row["tablename"] for row in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return {name: self.rows(f"SELECT count(*) AS rows FROM {name}")[0]["rows"] for name in names}

    def own(self, execution: Execution) -> dict[str, Mapping[str, Any]]:
        """Return an execution's own rows of invocations."""
        found = self.rows("SELECT * FROM invocations WHERE execution_id = $1", execution.exec_id)
        return {row["invocation_id"]: row for row in found}

    def lineage_length(self, execution: Execution) -> int:
        """Return how many executions an execution reads from, itself included."""
        found = self.rows("SELECT count(*) AS rows FROM lineage WHERE execution_id = $1", execution.exec_id)
        return int(found[0]["rows"])

    def check_edges(self, execution: Execution) -> None:
        """An execution's own edges are those of its own rows; a call that was not made may have kept some."""
        wrong = self.rows(
            """
            WITH own AS (
                SELECT u.number AS upstream, i.number AS downstream, i.state = 'not_reached' AS hidden
                FROM invocations AS i CROSS JOIN LATERAL unnest(i.upstream) AS u (number) WHERE i.execution_id = $1
            )
            SELECT * FROM own FULL JOIN (SELECT * FROM edges WHERE execution_id = $1) AS e USING (upstream, downstream)
            WHERE e.execution_id IS NULL AND NOT own.hidden OR own.hidden IS NULL
            """,
            execution.exec_id,
        )
        assert not wrong

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()


def same(found: object, expected: object) -> bool:
    return repr(found) == repr(expected)


def finished(client: Client, execution: object) -> Execution:
    return client.executions.wait(execution, TIMEOUT_S)


# Flows.


def check_flow(tables: Tables, scenario: Scenario) -> None:
    program, source = scenario.program, scenario.source
    with Client() as client:
        ran.clear()
        execution = finished(client, generated_flow.run(program, x=INPUTS["x"]))
        check_flow_end(execution, source)
        statuses = {one.invocation_id: one.state for one in source.calls.values()}
        check_flow_outputs(execution, source, statuses)
        assert Counter(ran) == Counter(one.salt for one in source.calls.values())
        overrides = Overrides()
        for asked, _, expected in scenario.replays:
            overrides = overrides.and_then(asked.overrides)
            plan = client.executions.plan(execution, **asked.keywords())
            affected = {one.invocation_id for one in plan.affected}
            ran.clear()
            replay = finished(client, client.executions.replay(execution, expect_plan=plan.digest, **asked.keywords()))
            check_flow_end(replay, expected)
            executed = check_flow_counts(plan, source, expected, asked, Counter(ran))
            statuses = {k: one.state if k in executed else "reused" for k, one in expected.calls.items()}
            check_flow_outputs(replay, expected, statuses)
            check_flow_rows(tables, replay, source, expected, affected | executed | set(asked.overrides.checkpoints))
            execution, source = replay, expected


def check_flow_rows(tables: Tables, replay: Execution, source: PlainRun, expected: PlainRun, new: set[str]) -> None:
    """Copy on write: a replay's rows are what it affects, deltas and tombstones, and no more."""
    rows = tables.own(replay)
    tables.check_edges(replay)
    if tables.lineage_length(replay) == 1:
        assert set(rows) >= set(expected.calls)
        return
    tombstones = set(source.calls) - set(expected.calls)
    moved = {one for one in expected.calls if position_of(expected, one) != position_of(source, one)}
    assert set(rows) == new | tombstones | moved
    assert {one for one, row in rows.items() if row["state"] == "not_reached"} == tombstones


def position_of(run: PlainRun, identity: str) -> int | None:
    return list(run.calls).index(identity) + 1 if identity in run.calls else None


def check_flow_end(ended: Execution, expected: PlainRun) -> None:
    """The value or the failure is that of the full execution."""
    if expected.error is None:
        assert ended.status == "completed", ended.failure
        assert same(ended.result, expected.result)
        return
    assert ended.status == "failed"
    assert ended.failure is not None
    assert (ended.failure.origin, ended.failure.message) == ("user_code", str(expected.error)), ended.failure
    assert (ended.failure.exception_type or "").endswith(type(expected.error).__name__)


def check_flow_outputs(ended: Execution, expected: PlainRun, statuses: Mapping[str, str]) -> None:
    found = {one.invocation_id: one for one in ended.checkpoints}
    assert {k for k, one in found.items() if one.status != "not_reached"} == set(expected.calls)
    for identity, call in expected.calls.items():
        assert found[identity].status == statuses[identity], (identity, found[identity].status, statuses[identity])
        if call.overridden or call.error is None:
            assert same(found[identity].load(), call.received), identity


def fresh_by_value(call: PlainCall, before: PlainCall | None, fresh: list[PlainCall]) -> bool:
    """Whether a call takes, or took, or comes after what could be an output of a fresh call."""
    taken = [*leaves(call.inputs), *call.inputs.values(), *call.after_values, *leaves(list(call.after_values))]
    taken += [] if before is None else [*leaves(before.inputs), *before.inputs.values()]
    taken += parts_of(call.inputs) + ([] if before is None else parts_of(before.inputs))
    outputs = [value for one in fresh for value in (one.received, one.value) if value is not None]
    outputs += [part for value in outputs if isinstance(value, tuple) for part in value]
    return any(same(value, output) for value in taken for output in outputs)


def parts_of(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    return [value, *(part for one in value for part in parts_of(one))] if isinstance(value, list | tuple) else [value]


def check_flow_counts(plan: Plan, source: PlainRun, expected: PlainRun, asked: Asked, counts: Counter[str]) -> set[str]:
    """What is affected ran once, where it was reached; what else ran, SEMANTICS §5 lets run. Returns what ran."""
    affected = {one.invocation_id for one in plan.affected}
    assert not set(counts) - {one.salt for one in expected.calls.values()}, "ran, though the program does not call it"
    assert all(times == 1 for times in counts.values()), counts
    fresh: list[PlainCall] = []
    executed = set()
    for identity, call in expected.calls.items():
        before = source.calls.get(identity)
        differs = before is None or not same(before.inputs, call.inputs)
        must = identity in affected or differs
        may = must or fresh_by_value(call, before, fresh)
        times = counts[call.salt]
        assert times <= may, f"{identity} re-executed, and nothing let it"
        assert times >= must, f"{identity} did not re-execute"
        carried = before is not None and before.overridden and same(before.received, call.received)
        if times or (call.overridden and not carried):
            fresh.append(call)
        if times:
            executed.add(identity)
    return executed


# Pipelines.


def check_pipeline_scenario(tables: Tables, scenario: Scenario) -> None:
    program, source = scenario.program, scenario.source
    with Client() as client:
        ran.clear()
        execution = finished(client, client.executions.start(generated_pipeline, program, x=INPUTS["x"]))
        check_pipeline(execution, source, set(source.calls))
        assert Counter(ran) == Counter(one.salt for one in source.calls.values() if one.state != "blocked")
        for asked, from_code, expected in scenario.replays:
            keywords = asked.keywords()
            keywords.pop("on_stale", None)
            affected = planned(source, asked)
            plan = client.executions.plan(execution, **keywords)
            assert {one.invocation_id for one in plan.affected} == affected
            assert {one.invocation_id for one in plan.reused} == set(source.calls) - affected
            ran.clear()
            replay = replayed_pipeline(client, execution, asked, keywords, from_code=from_code)
            must = [one.salt for k, one in expected.calls.items() if k in affected and one.state != "blocked"]
            assert Counter(ran) == Counter(must)
            check_pipeline(replay, expected, affected)
            stale = {
                k
                for k, call in stale_calls(source, asked, affected).items()
                if call.reads & set(asked.overrides.inputs)
            }
            if tables.lineage_length(replay) > 1:
                assert set(tables.own(replay)) == affected | set(asked.overrides.checkpoints) | stale
            tables.check_edges(replay)
            execution, source = replay, expected


def replayed_pipeline(
    client: Client, source: Execution, asked: Asked, keywords: dict[str, Any], *, from_code: bool
) -> Execution:
    """Replay on the server, or from code where that can say the same."""
    if not from_code or asked.overrides.checkpoints or asked.mode in ("from", "overrides"):
        return finished(client, client.executions.replay(source, **keywords))
    try:
        return generated_pipeline.replay(
            pipeline_run=source.exec_id,
            skip=asked.request.get("skip"),
            skip_successful_steps="skip_successful_steps" in asked.request,
            input_overrides=asked.overrides.inputs,
            step_input_overrides=asked.overrides.step_inputs,
        )
    except ExecutionError as error:
        if error.exec_id is None:
            raise
        return client.executions.get(error.exec_id)


def check_pipeline(ended: Execution, expected: PlainRun, affected: set[str]) -> None:
    """Every value is that of a full execution, and what failed stops what comes after, and nothing else."""
    found = {one.invocation_id: one for one in ended.checkpoints}
    assert set(found) == set(expected.calls)
    for identity, call in expected.calls.items():
        status = found[identity].status
        if identity not in affected:
            assert status == "reused", identity
        elif call.state == "blocked":
            assert status not in ("completed", "reused", "failed"), (identity, status)
        else:
            assert status == call.state, (identity, found[identity].failure)
        if call.overridden or call.state == "completed":
            assert same(found[identity].load(), call.received), identity
    well = all(call.state == "completed" for one, call in expected.calls.items() if one in affected)
    assert ended.status == ("completed" if well else "failed"), ended.failure
    if well and all(call.state == "completed" for call in expected.calls.values()):
        assert same(ended.result, expected.result)
