"""Random replays of random programs, drawn before anything runs, with what has to come of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from tests.e2e.oracle import generation
from tests.e2e.oracle.plain import Circumstances, Overrides, PlainCall, PlainRun, run_flow, run_pipeline
from tests.e2e.oracle.programs import FLOW_INPUTS, Description
from tests.unit.plan_oracle import Request as PlanRequest
from tests.unit.plan_oracle import Step, expected_plan

REPLAYS = 3
INPUTS = {"x": "given x", "y": "default y", "z": "default z"}


@dataclass
class Asked:
    """A replay that is asked for.

    Attributes:
        aged: The calls of its source that ran with code of long ago.
    """

    mode: str
    request: dict[str, Any] = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    chosen: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    on_stale: str = "rerun"
    aged: frozenset[str] = frozenset()

    @property
    def reruns_changed(self) -> bool:
        return "rerun_changed_code" in self.request

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of ``executions.replay``."""
        found = dict(self.request)
        if self.overrides.checkpoints:
            found["overrides"] = {f"checkpoint.invocation:{k}": v for k, v in self.overrides.checkpoints.items()}
        if self.overrides.step_inputs:
            found["step_input_overrides"] = self.overrides.step_inputs
        if self.overrides.inputs:
            found |= {"inputs": self.overrides.inputs, "on_stale": self.on_stale}
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
    calls = run.recorded_steps
    by_id = {one.invocation_id: one for one in calls}
    modes = ["from", "overrides", "skip", "skip_successful", "everything", "inputs", "changed_code"]
    mode = draw(st.sampled_from(modes if calls else ["everything", "inputs"]))
    consumed = set(by_id) if is_flow else {up for one in calls for up in one.takes}
    without = ("skip", "everything", "changed_code")
    asked = Asked(mode, overrides=Overrides() if mode in without else draw_overrides(draw, calls, consumed))
    match mode:
        case "from":
            selectors = [draw_selector(draw, by_id[one], calls) for one in some(draw, list(by_id), 1, 3)]
            asked.request["from_"] = [text for text, _ in selectors]
            asked.chosen = frozenset(one for _, meant in selectors for one in meant)
        case "skip":
            cut = draw(st.integers(0, first_not_to_skip(run, is_flow=is_flow)))
            asked.skipped = frozenset(list(run.calls)[:cut])
            asked.request["skip"] = sorted(asked.skipped)
            left = [one for one in calls if one.invocation_id not in asked.skipped]
            asked.overrides = draw_overrides(draw, left, consumed)
        case "skip_successful":
            asked.request["skip_successful_steps"] = True
        case "overrides" if not (asked.overrides.checkpoints or asked.overrides.step_inputs):
            asked.mode = "everything"
        case "inputs":
            asked.mode = (
                "everything" if not (asked.overrides.checkpoints or asked.overrides.step_inputs) else "overrides"
            )
            asked.overrides.inputs = {draw(st.sampled_from(FLOW_INPUTS)): draw(st.sampled_from(["new", 7, None]))}
        case "changed_code":
            asked.request["rerun_changed_code"] = True
    if draw(st.integers(0, 3)) == 0:
        for one in some(draw, list(FLOW_INPUTS), 1, 2):
            asked.overrides.inputs[one] = draw(st.sampled_from(["new", 8, True]))
    if mode == "changed_code" or draw(st.integers(0, 4)) == 0:
        draw_aged(draw, asked, run)
    return asked


def first_not_to_skip(run: PlainRun, *, is_flow: bool) -> int:
    """Return how many steps can be skipped from the first on: those that succeeded, with no wait before them."""
    for index, one in enumerate(run.calls.values()):
        if one.is_wait or one.state != "completed" or (one.overridden and is_flow):
            return index
    return len(run.calls)


def draw_aged(draw: st.DrawFn, asked: Asked, run: PlainRun) -> None:
    asked.aged = frozenset(some(draw, [one for one in run.steps if one not in asked.skipped], 0, 3))
    kept = any(run.calls[one].changed for one in asked.skipped)
    if asked.mode not in ("everything", "changed_code") and not kept and draw(st.booleans()):
        asked.request["rerun_changed_code"] = True


@dataclass
class Replay:
    """One replay of a scenario.

    Attributes:
        expected: What has to come of it; not known beforehand where stale values are reused in a flow.
        circumstances: What else it depends on.
        from_code: Whether it is replayed from code, where that can say the same.
        source_after: What has to come of its source where that goes on after the replay was made.
        goes_on: The circumstances in which the source goes on.
    """

    asked: Asked
    expected: PlainRun | None
    circumstances: Circumstances = field(default_factory=Circumstances)
    from_code: bool = False
    source_after: PlainRun | None = None
    goes_on: Circumstances = field(default_factory=Circumstances)


@dataclass
class Scenario:
    """A program, and the replays that follow each other."""

    program: Description
    source: PlainRun
    circumstances: Circumstances = field(default_factory=Circumstances)
    replays: list[Replay] = field(default_factory=list)

    def __repr__(self) -> str:
        asked = "".join(
            f"\n  {one.asked.mode} {one.asked.keywords()} aged: {sorted(one.asked.aged)}"
            f"{' from code' * one.from_code}{f' source goes on: {one.goes_on}' if one.source_after else ''}"
            for one in self.replays
        )
        return f"{self.program} {self.circumstances}{asked}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def draw_run(
    draw: st.DrawFn, program: Description, overrides: Overrides, generation: int
) -> tuple[PlainRun, Circumstances]:
    """Run a flow, and leave it waiting now and then."""
    circumstances = Circumstances(generation)
    run = run_flow(program, INPUTS, overrides, circumstances)
    if run.waits and draw(st.integers(0, 2)) == 0:
        circumstances = Circumstances(generation, draw(st.integers(0, len(run.waits) - 1)))
        run = run_flow(program, INPUTS, overrides, circumstances)
    return run, circumstances


@st.composite
def flow_scenarios(draw: st.DrawFn, replays: int = REPLAYS) -> Scenario:
    """Everything is drawn before anything runs."""
    program: Description = draw(generation.flows())
    overrides = Overrides()
    run, circumstances = draw_run(draw, program, overrides, 0)
    scenario = Scenario(program, run, circumstances)
    for number in range(1, replays + 1):
        asked, before, source = draw_asked(draw, run, is_flow=True), overrides, run
        overrides = overrides.and_then(asked.overrides)
        if number == replays and draw(st.booleans()) and asked.overrides.inputs:
            asked.on_stale = "reuse"
            scenario.replays.append(Replay(asked, None, Circumstances(number)))
            break
        run, circumstances = draw_run(draw, program, overrides, number)
        if run.waiting:
            run.unmade = {one: call for one, call in source.recorded.items() if one not in run.calls}
        mark_changed(source, asked, run)
        replay = Replay(asked, run, circumstances)
        mended = source.to_mend if draw(st.integers(0, 1)) == 0 else frozenset()
        if source.waiting or mended:
            replay.goes_on = Circumstances(number - 1, mended=mended)
            replay.source_after = run_flow(program, INPUTS, before, replay.goes_on)
        scenario.replays.append(replay)
    return scenario


def mark_changed(source: PlainRun, asked: Asked, run: PlainRun) -> None:
    """Note which calls may show code of long ago."""
    for identity, call in source.steps.items():
        call.changed = call.changed or identity in asked.aged
        if identity in run.calls:
            run.calls[identity].changed = call.changed


def recorded_steps(run: PlainRun) -> list[Step]:
    return [
        Step(
            one.invocation_id, one.name, one.takes, one.after,
            succeeded=one.state == "completed", reads=one.reads, overridden=one.overridden, changed=one.changed,
        )
        for one in run.calls.values()
    ]  # fmt: skip


@st.composite
def pipeline_scenarios(draw: st.DrawFn, replays: int = REPLAYS) -> Scenario:
    """Everything is drawn before anything runs."""
    program: Description = draw(generation.pipelines())
    overrides = Overrides()
    run = run_pipeline(program, INPUTS, overrides, {})
    scenario = Scenario(program, run)
    kept: dict[str, PlainCall] = {}
    for _ in range(replays):
        asked, source, before, kept_before = draw_asked(draw, run, is_flow=False), run, overrides, kept
        rerun: bool = draw(st.integers(0, 2)) == 0
        asked.on_stale = "rerun" if rerun else "reuse"
        overrides = overrides.and_then(asked.overrides)
        for identity in asked.aged:
            source.calls[identity].changed = True
        affected = planned(source, asked)
        kept = stale_calls(source, asked, affected)
        run = run_pipeline(program, INPUTS, overrides, kept)
        for identity, call in source.calls.items():
            if identity not in affected:
                # What is overridden and reused need not have completed.
                run.calls[identity].state, run.calls[identity].value = call.state, call.value
                run.calls[identity].changed = call.changed
        replay = Replay(asked, run, from_code=draw(st.booleans()))
        failed = frozenset(
            call.salt for call in source.calls.values() if call.state == "failed" and not call.overridden
        )
        if failed and draw(st.integers(0, 1)) == 0:
            replay.goes_on = Circumstances(mended=failed)
            replay.source_after = run_pipeline(program, INPUTS, before, kept_before, failed)
        scenario.replays.append(replay)
    return scenario


def planned(run: PlainRun, asked: Asked) -> set[str]:
    """Return what re-executes."""
    plan = expected_plan(recorded_steps(run), plan_request(asked, is_flow=False))
    if plan.refused:
        reject()
    return plan.affected


def plan_request(asked: Asked, *, is_flow: bool) -> PlanRequest:
    return PlanRequest(
        asked.mode,
        asked.chosen,
        asked.skipped,
        frozenset(asked.overrides.checkpoints),
        frozenset(asked.overrides.step_inputs),
        rerun_changed_code=asked.reruns_changed,
        inputs=frozenset(asked.overrides.inputs),
        reruns_readers=asked.on_stale == "rerun" and not is_flow,
    )


def stale_calls(run: PlainRun, asked: Asked, affected: set[str]) -> dict[str, PlainCall]:
    """Return what is reused though it reads an overridden input."""
    inputs = set(asked.overrides.inputs)
    return {k: call for k, call in run.calls.items() if k not in affected and (call.reads & inputs or call.stale)}
