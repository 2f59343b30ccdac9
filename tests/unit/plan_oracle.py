"""The replay plan as SEMANTICS §3 says it, with sets and no cleverness: what planning is held against."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st


@dataclass(frozen=True)
class Step:
    """One invocation of a recorded execution; `overridden` is one that the execution, being a replay, overrides."""

    id: str
    name: str
    takes: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    succeeded: bool = True
    changed: bool = False
    reads: frozenset[str] = frozenset()
    overridden: bool = False


@dataclass(frozen=True)
class Request:
    """What is asked for, in invocation IDs."""

    mode: str
    chosen: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    overridden: frozenset[str] = frozenset()
    step_inputs: frozenset[str] = frozenset()
    rerun_changed_code: bool = False
    inputs: frozenset[str] = frozenset()
    reruns_readers: bool = False


@dataclass(frozen=True)
class Expected:
    """The plan; or that the request is refused."""

    roots: dict[str, set[str]] = field(default_factory=dict)
    affected: set[str] = field(default_factory=set)
    refused: bool = False


def expected_plan(steps: list[Step], request: Request) -> Expected:
    """Say what the plan must be."""
    by_id = {step.id: step for step in steps}
    everyone = set(by_id)
    edges = {(up, step.id) for step in steps for up in step.takes | step.after}

    roots: dict[str, set[str]] = {one: set() for one in everyone}
    for one in request.chosen:
        roots[one].add("from")
    for one in request.overridden:
        for consumer in everyone:
            if one in by_id[consumer].takes:
                roots[consumer].add("checkpoint_override")
    for one in request.step_inputs:
        roots[one].add("step_input_override")
    for one in everyone:
        if request.rerun_changed_code and by_id[one].changed:
            roots[one].add("code_changed")
        overridden = one in request.overridden or by_id[one].overridden
        if not by_id[one].succeeded and (not overridden or request.mode == "skip_successful"):
            roots[one].add("not_completed")
        touched = request.mode == "skip_successful" or request.reruns_readers
        if touched and by_id[one].reads & request.inputs:
            roots[one].add("flow_input_override")

    def descendants(of: set[str]) -> set[str]:
        found = set(of)
        while True:
            more = {down for up, down in edges if up in found} - found
            if not more:
                return found
            found |= more

    if request.mode == "everything":
        affected = set(everyone)
        for one in affected:
            roots[one].add("everything")
    elif request.mode == "skip":
        affected = everyone - request.skipped
        for one in request.skipped:
            open_upstream = (by_id[one].takes | by_id[one].after) - request.skipped
            if open_upstream or not by_id[one].succeeded or roots[one]:
                return Expected(refused=True)
        for one in affected:
            roots[one].add("not_skipped")
    elif request.mode == "skip_successful":
        kept = {one for one in everyone if by_id[one].succeeded and not roots[one]}
        while True:
            closed = {one for one in kept if by_id[one].takes | by_id[one].after <= kept}
            if closed == kept:
                break
            kept = closed
        affected = everyone - kept
    else:
        affected = descendants({one for one in everyone if roots[one]})
    return Expected({one: why for one, why in roots.items() if why and one in affected}, affected)


@st.composite
def graphs(draw: st.DrawFn, most: int = 10) -> list[Step]:
    """Random graphs: diamonds, fan-in and fan-out, order edges, repeated names, failed and never-run steps."""
    count = draw(st.integers(1, most))
    steps: list[Step] = []
    counts: dict[str, int] = {}
    for _ in range(count):
        earlier = [step.id for step in steps]
        name = draw(st.sampled_from("abcd"))
        counts[name] = counts.get(name, 0) + 1
        identity = name if counts[name] == 1 else f"{name}_{counts[name]}"
        takes = draw(st.frozensets(st.sampled_from(earlier), max_size=4)) if earlier else frozenset()
        rest = [one for one in earlier if one not in takes]
        after = draw(st.frozensets(st.sampled_from(rest), max_size=2)) if rest else frozenset()
        healthy = all(step.succeeded for step in steps if step.id in takes | after)
        succeeded = healthy and draw(st.integers(0, 9)) > 0
        changed = draw(st.integers(0, 4)) == 0
        reads = draw(st.frozensets(st.sampled_from(["lr", "topic"]), max_size=1))
        steps.append(Step(identity, name, takes, after, succeeded, changed, reads))
    return steps


@st.composite
def requests(draw: st.DrawFn, steps: list[Step]) -> Request:
    """Random requests for a graph; overrides only of what has a consumer."""
    ids = st.sampled_from([step.id for step in steps])
    consumed = sorted({up for step in steps for up in step.takes})
    some_consumed = st.frozensets(st.sampled_from(consumed), max_size=2) if consumed else st.just(frozenset[str]())
    mode = draw(st.sampled_from(["from", "overrides", "changed_code", "skip", "skip_successful", "everything"]))
    overridden: frozenset[str] = frozenset()
    step_inputs: frozenset[str] = frozenset()
    if mode != "changed_code":
        overridden = draw(some_consumed)
        step_inputs = draw(st.frozensets(ids, max_size=2))
    if mode == "overrides" and not overridden and not step_inputs:
        step_inputs = frozenset([steps[0].id])
    return Request(
        mode=mode,
        chosen=draw(st.frozensets(ids, min_size=1, max_size=3)) if mode == "from" else frozenset(),
        skipped=draw(_skipped(steps)) if mode == "skip" else frozenset(),
        overridden=overridden,
        step_inputs=step_inputs,
        rerun_changed_code=mode == "changed_code" or draw(st.booleans()),
        inputs=draw(st.frozensets(st.sampled_from(["lr", "topic"]), max_size=1)),
    )


@st.composite
def _skipped(draw: st.DrawFn, steps: list[Step]) -> frozenset[str]:
    """Mostly what can be skipped: sets with everything upstream in them."""
    chosen = draw(st.frozensets(st.sampled_from([step.id for step in steps]), max_size=4))
    if draw(st.integers(0, 4)) == 0:
        return chosen
    by_id = {step.id: step for step in steps}
    waiting = list(chosen)
    closed = set(chosen)
    while waiting:
        step = by_id[waiting.pop()]
        waiting.extend((step.takes | step.after) - closed)
        closed |= step.takes | step.after
    return frozenset(one for one in closed if by_id[one].succeeded)
