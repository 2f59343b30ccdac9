"""Random flows and pipelines are run and replayed; a plain-Python run of the same program says what has to come.

Everything runs for real, on one engine and in this process. `DALSEGNO_ORACLE_EXAMPLES` raises the number of programs.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from dalsegno import Client
from dalsegno.client.executions import Execution
from dalsegno.client.plans import Plan
from dalsegno.errors import ExecutionError
from dalsegno.local import engine
from dalsegno.local.engine import down
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.state import EngineState
from tests.e2e.oracle import generation
from tests.e2e.oracle.plain import Overrides, PlainCall, PlainRun, leaves, run_flow, run_pipeline
from tests.e2e.oracle.programs import FLOW_INPUTS, Description, generated_flow, generated_pipeline, ran
from tests.postgres import reachable_folder
from tests.unit.plan_oracle import Request as PlanRequest
from tests.unit.plan_oracle import Step, expected_plan

EXAMPLES = int(os.environ.get("DALSEGNO_ORACLE_EXAMPLES", "60"))
REPLAYS = 3
TIMEOUT_S = 60
INPUTS = {"x": "given x", "y": "default y", "z": "default z"}

oracle = settings(
    max_examples=EXAMPLES,
    derandomize="DALSEGNO_ORACLE_RANDOM" not in os.environ,
    database=None,
    # Shrinking would run hundreds of programs more.
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Tables:
    """Looks into the engine's database."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def rows(self, sql: str, *values: object) -> list[Mapping[str, Any]]:
        return list(self._runner.run(self._connection.fetch(sql, *values)))

    def counts(self) -> dict[str, int]:
        """Return how many rows every table has."""
        names = [row["tablename"] for row in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return {name: self.rows(f"SELECT count(*) AS rows FROM {name}")[0]["rows"] for name in names}

    def own(self, execution: Execution) -> dict[str, Mapping[str, Any]]:
        """Return an execution's own rows of invocations."""
        found = self.rows("SELECT * FROM invocations WHERE execution_id = $1", execution.exec_id)
        return {row["invocation_id"]: row for row in found}

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    """An engine that is used by this process alone."""
    with pytest.MonkeyPatch.context() as patch, reachable_folder() as folder:
        patch.setenv(HOME_VARIABLE, str(folder / "home"))
        patch.setenv("DALSEGNO_PROJECT", "oracle")
        patch.delenv("DALSEGNO_ADDRESS", raising=False)
        patch.setattr(engine, "_used", {})
        with Client() as client:
            assert not list(client.executions.list())
            state = EngineState.read(EngineHome.from_environment().state_file)
            assert state is not None
            tables = Tables(state.database_url)
            yield tables
            tables.close()
        down()


@dataclass
class Asked:
    """A replay that is asked for."""

    mode: str
    request: dict[str, Any] = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    chosen: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of ``executions.replay``."""
        found = dict(self.request)
        if self.overrides.checkpoints:
            found["overrides"] = {f"checkpoint.invocation:{k}": v for k, v in self.overrides.checkpoints.items()}
        if self.overrides.step_inputs:
            found["step_input_overrides"] = self.overrides.step_inputs
        if self.overrides.inputs:
            found |= {"inputs": self.overrides.inputs, "on_stale": "rerun"}
        return found


def some(draw: st.DrawFn, values: list[str], least: int, most: int) -> list[str]:
    return draw(st.lists(st.sampled_from(values), min_size=least, max_size=most, unique=True)) if values else []


def draw_overrides(draw: st.DrawFn, calls: list[PlainCall], consumed: set[str]) -> Overrides:
    overrides = Overrides()
    single = [one.invocation_id for one in calls if one.name != "split" and one.invocation_id in consumed]
    by_id = {one.invocation_id: one for one in calls}
    if draw(st.booleans()):
        for one in some(draw, single, 0, 2):
            overrides.checkpoints[one] = generation.value_for(draw, by_id[one].name)
    if draw(st.integers(0, 2)) == 0:
        for one in some(draw, list(by_id), 0, 2):
            name = draw(st.sampled_from([name for name in by_id[one].inputs if name != "salt"]))
            value = draw(st.one_of(generation.CONSTANTS, st.just(["new", "list"])))
            overrides.step_inputs[one] = {name: value}
    return overrides


def draw_selector(draw: st.DrawFn, call: PlainCall, calls: list[PlainCall]) -> tuple[str, set[str]]:
    same = {one.invocation_id for one in calls if one.name == call.name}
    if draw(st.integers(0, 5)) == 0:
        return f"all:{call.name}", same
    if same == {call.invocation_id} and draw(st.booleans()):
        return f"name:{call.name}", same
    return f"invocation:{call.invocation_id}", {call.invocation_id}


def draw_asked(draw: st.DrawFn, run: PlainRun, *, is_flow: bool) -> Asked:
    """Draw a replay that is valid."""
    calls = list(run.calls.values())
    modes = ["from", "overrides", "skip", "skip_successful", "everything", "inputs"]
    mode = draw(st.sampled_from(modes if calls else ["everything", "inputs"]))
    consumed = set(run.calls) if is_flow else {up for one in calls for up in one.takes}
    asked = Asked(mode, overrides=draw_overrides(draw, calls, consumed) if mode not in ("skip", "everything") else Overrides())
    match mode:
        case "from":
            selectors = [draw_selector(draw, run.calls[one], calls) for one in some(draw, list(run.calls), 1, 3)]
            asked.request["from_"] = [text for text, _ in selectors]
            asked.chosen = frozenset(one for _, meant in selectors for one in meant)
        case "skip":
            first_bad = next((k for k, one in enumerate(calls) if one.state != "completed" or (one.overridden and is_flow)), len(calls))
            cut = draw(st.integers(0, first_bad))
            asked.skipped = frozenset(one.invocation_id for one in calls[:cut])
            asked.request["skip"] = sorted(asked.skipped)
            later = [one for one in calls[cut:]]
            asked.overrides = draw_overrides(draw, later, consumed)
        case "skip_successful":
            asked.request["skip_successful_steps"] = True
        case "overrides" if not (asked.overrides.checkpoints or asked.overrides.step_inputs):
            asked.mode = "everything"
        case "inputs":
            asked.mode = "everything" if not (asked.overrides.checkpoints or asked.overrides.step_inputs) else "overrides"
            asked.overrides.inputs = {draw(st.sampled_from(FLOW_INPUTS)): draw(st.sampled_from(["new", 7, None]))}
    if draw(st.integers(0, 3)) == 0:
        for one in some(draw, list(FLOW_INPUTS), 1, 2):
            asked.overrides.inputs[one] = draw(st.sampled_from(["new", 8, True]))
    return asked


def same(found: object, expected: object) -> bool:
    return repr(found) == repr(expected)


def finished(client: Client, execution: object) -> Execution:
    return client.executions.wait(execution, TIMEOUT_S)


# Flows.


def check_flow_end(ended: Execution, expected: PlainRun) -> None:
    """The value or the failure is that of the full execution."""
    if expected.error is None:
        assert ended.status == "completed", ended.failure
        assert same(ended.result, expected.result)
        return
    assert ended.status == "failed"
    assert ended.failure is not None
    assert (ended.failure.origin, ended.failure.message) == ("user_code", str(expected.error)), ended.failure
    assert ended.failure.exception_type.endswith(type(expected.error).__name__)


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
        if times or identity in asked.overrides.checkpoints:
            fresh.append(call)
        if times:
            executed.add(identity)
    return executed


@dataclass
class Scenario:
    """A program, and the replays that follow each other: what each asks, whether from code, and what has to come."""

    program: Description
    source: PlainRun
    replays: list[tuple[Asked, bool, PlainRun]] = field(default_factory=list)

    def __repr__(self) -> str:
        asked = "".join(f"\n  {one.mode} {one.keywords()}{' from code' * code}" for one, code, _ in self.replays)
        return f"{self.program}{asked}"


@st.composite
def flow_scenarios(draw: st.DrawFn) -> Scenario:
    """Everything is drawn before anything runs."""
    program, overrides = draw(generation.flows()), Overrides()
    run = run_flow(program, INPUTS, overrides)
    scenario = Scenario(program, run)
    for _ in range(REPLAYS):
        asked = draw_asked(draw, run, is_flow=True)
        overrides = overrides.and_then(asked.overrides)
        run = run_flow(program, INPUTS, overrides)
        scenario.replays.append((asked, False, run))
    return scenario


@oracle
@given(flow_scenarios())
def test_flows(tables: Tables, scenario: Scenario) -> None:
    check_flow(tables, scenario)


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
            replay = finished(
                client, client.executions.replay(execution, expect_plan=plan.digest, **asked.keywords())
            )
            check_flow_end(replay, expected)
            executed = check_flow_counts(plan, source, expected, asked, Counter(ran))
            statuses = {k: one.state if k in executed else "reused" for k, one in expected.calls.items()}
            check_flow_outputs(replay, expected, statuses)
            tombstones = set(source.calls) - set(expected.calls)
            rows = tables.own(replay)
            assert set(rows) >= affected | executed | set(asked.overrides.checkpoints) | tombstones
            more = set(rows) - (affected | executed | set(overrides.checkpoints) | tombstones)
            assert all(rows[one]["position"] != position_of(source, one) for one in more), more
            execution, source = replay, expected


def position_of(run: PlainRun, identity: str) -> int:
    return list(run.calls).index(identity) + 1


# Pipelines.


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


def recorded_steps(run: PlainRun) -> list[Step]:
    return [
        Step(
            one.invocation_id, one.name, one.takes, one.after,
            succeeded=one.state == "completed", reads=one.reads, overridden=one.overridden,
        )
        for one in run.calls.values()
    ]  # fmt: skip


@st.composite
def pipeline_scenarios(draw: st.DrawFn) -> Scenario:
    """Everything is drawn before anything runs."""
    program, overrides = draw(generation.pipelines()), Overrides()
    run = run_pipeline(program, INPUTS, overrides, {})
    scenario = Scenario(program, run)
    for _ in range(REPLAYS):
        asked = draw_asked(draw, run, is_flow=False)
        overrides = overrides.and_then(asked.overrides)
        affected = planned(run, asked)
        stale = stale_calls(run, asked, affected)
        expected = run_pipeline(program, INPUTS, overrides, stale)
        for identity, call in run.calls.items():
            if identity not in affected:
                # What is overridden and reused need not have completed.
                expected.calls[identity].state, expected.calls[identity].value = call.state, call.value
        scenario.replays.append((asked, draw(st.booleans()), expected))
        run = expected
    return scenario


def planned(run: PlainRun, asked: Asked) -> set[str]:
    """Return what re-executes."""
    request = PlanRequest(
        asked.mode,
        asked.chosen,
        asked.skipped,
        frozenset(asked.overrides.checkpoints),
        frozenset(asked.overrides.step_inputs),
        inputs=frozenset(asked.overrides.inputs),
    )
    plan = expected_plan(recorded_steps(run), request)
    assume(not plan.refused)
    return plan.affected


def stale_calls(run: PlainRun, asked: Asked, affected: set[str]) -> dict[str, PlainCall]:
    """Return what is reused though it reads an overridden input."""
    inputs = set(asked.overrides.inputs)
    return {k: call for k, call in run.calls.items() if k not in affected and (call.reads & inputs or call.stale)}


@oracle
@given(pipeline_scenarios())
def test_pipelines(tables: Tables, scenario: Scenario) -> None:
    check_pipeline_scenario(tables, scenario)


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
            stale = {k for k, call in stale_calls(source, asked, affected).items() if call.reads & set(asked.overrides.inputs)}
            assert set(tables.own(replay)) == affected | set(asked.overrides.checkpoints) | stale
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
        assert error.exec_id is not None
        return client.executions.get(error.exec_id)
