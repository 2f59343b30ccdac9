"""Random replays of random programs, drawn before anything runs, with what has to come of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tests.e2e.oracle import generation
from tests.e2e.oracle.plain import Overrides, PlainCall, PlainRun, run_flow, run_pipeline
from tests.e2e.oracle.programs import FLOW_INPUTS, Description
from tests.unit.plan_oracle import Request as PlanRequest
from tests.unit.plan_oracle import Step, expected_plan

REPLAYS = 3
INPUTS = {"x": "given x", "y": "default y", "z": "default z"}


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
    asked = Asked(
        mode, overrides=draw_overrides(draw, calls, consumed) if mode not in ("skip", "everything") else Overrides()
    )
    match mode:
        case "from":
            selectors = [draw_selector(draw, run.calls[one], calls) for one in some(draw, list(run.calls), 1, 3)]
            asked.request["from_"] = [text for text, _ in selectors]
            asked.chosen = frozenset(one for _, meant in selectors for one in meant)
        case "skip":
            first_bad = next(
                (k for k, one in enumerate(calls) if one.state != "completed" or (one.overridden and is_flow)),
                len(calls),
            )
            cut = draw(st.integers(0, first_bad))
            asked.skipped = frozenset(one.invocation_id for one in calls[:cut])
            asked.request["skip"] = sorted(asked.skipped)
            asked.overrides = draw_overrides(draw, calls[cut:], consumed)
        case "skip_successful":
            asked.request["skip_successful_steps"] = True
        case "overrides" if not (asked.overrides.checkpoints or asked.overrides.step_inputs):
            asked.mode = "everything"
        case "inputs":
            asked.mode = (
                "everything" if not (asked.overrides.checkpoints or asked.overrides.step_inputs) else "overrides"
            )
            asked.overrides.inputs = {draw(st.sampled_from(FLOW_INPUTS)): draw(st.sampled_from(["new", 7, None]))}
    if draw(st.integers(0, 3)) == 0:
        for one in some(draw, list(FLOW_INPUTS), 1, 2):
            asked.overrides.inputs[one] = draw(st.sampled_from(["new", 8, True]))
    return asked


@dataclass
class Scenario:
    """A program, and the replays that follow each other: what each asks, whether from code, and what has to come."""

    program: Description
    source: PlainRun
    replays: list[tuple[Asked, bool, PlainRun]] = field(default_factory=list)

    def __repr__(self) -> str:
        asked = "".join(f"\n  {one.mode} {one.keywords()}{' from code' * code}" for one, code, _ in self.replays)
        return f"{self.program}{asked}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


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
