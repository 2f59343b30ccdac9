"""What a replay re-executes, and why."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from dalsegno_planner.core import problems
from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.graph import Graph, Node
from dalsegno_planner.core.ids import CallId, InvocationId, Number
from dalsegno_planner.core.problems import Problem


class Mode(StrEnum):
    """What decides which invocations re-execute."""

    FROM = "from"
    OVERRIDES = "overrides"
    CHANGED_CODE = "changed_code"
    SKIP = "skip"
    SKIP_SUCCESSFUL = "skip_successful"
    EVERYTHING = "everything"

    @property
    def keeps_only_what_is_named(self) -> bool:
        """Whether everything re-executes but a set that the request names."""
        return self in (Mode.SKIP, Mode.EVERYTHING)


class OnStale(StrEnum):
    """What happens to a reused call whose inputs differ only because flow inputs were overridden."""

    REUSE = "reuse"
    RERUN = "rerun"
    FAIL = "fail"


class RootReason(StrEnum):
    """Why an invocation is a replay root."""

    FROM = "from"
    CHECKPOINT_OVERRIDE = "checkpoint_override"
    STEP_INPUT_OVERRIDE = "step_input_override"
    CODE_CHANGED = "code_changed"
    NOT_COMPLETED = "not_completed"
    NOT_SKIPPED = "not_skipped"
    EVERYTHING = "everything"
    FLOW_INPUT_OVERRIDE = "flow_input_override"
    NEW_STEP = "new_step"


IMPLIED_REASONS: Mapping[Mode, RootReason] = {
    Mode.SKIP: RootReason.NOT_SKIPPED,
    Mode.EVERYTHING: RootReason.EVERYTHING,
}
"""Modes in which whatever re-executes is a root, for this reason among others."""


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One reason; `cause` is the selector, override key or input that it comes from, if any."""

    reason: RootReason
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A request whose selectors are resolved against the graph.

    Attributes:
        chosen: What `from` names, with the selector.
        kept: What `skip` names.
        overridden: Invocations whose output is overridden, with the key.
        step_inputs: Invocations of which an input is overridden, with the key.
        changed: Invocations whose code has changed, where those are to re-execute.
        touching_inputs: Overridden flow inputs whose readers re-execute.
        new: Invocations that are not recorded.
    """

    mode: Mode
    chosen: Mapping[Number, str] = field(default_factory=dict)
    kept: frozenset[Number] = frozenset()
    overridden: Mapping[Number, str] = field(default_factory=dict)
    step_inputs: Mapping[Number, str] = field(default_factory=dict)
    changed: frozenset[Number] = frozenset()
    touching_inputs: frozenset[str] = frozenset()
    new: frozenset[Number] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What re-executes: the roots with their reasons, and everything that is affected."""

    roots: Mapping[Number, tuple[Reason, ...]]
    affected: frozenset[Number]


class PlanEntry(NamedTuple):
    """One invocation in a plan; a tuple because a page has thousands.

    Attributes:
        reasons: Why it is a root; empty for one that is not.
        call_id: For a reused one, the call that its outputs come from.
        recorded_seconds: How long it took where it comes from; 0 where that is not known.
    """

    number: Number
    invocation_id: InvocationId
    name: str
    kind: InvocationKind
    reasons: tuple[Reason, ...] = ()
    call_id: CallId | None = None
    recorded_seconds: float = 0.0
    output_overridden: bool = False


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """A plan without its entries."""

    digest: str
    root_count: int
    affected_count: int
    reused_count: int
    warnings: tuple[str, ...]


def decide(graph: Graph, choice: Choice) -> Decision:
    """Apply the table of modes and the list of roots to a whole graph."""
    roots = find_roots(graph, choice)
    implied = IMPLIED_REASONS.get(choice.mode)
    if implied is None:
        return Decision(_sorted(roots), graph.with_descendants(roots))
    affected = frozenset(node.number for node in graph.steps if node.number not in choice.kept)
    for number in affected:
        roots[number].add(Reason(implied))
    return Decision(_sorted(roots), affected | graph.with_descendants(roots))


def find_roots(graph: Graph, choice: Choice) -> defaultdict[Number, set[Reason]]:
    """The roots that a request makes by itself, whatever its mode."""
    roots: defaultdict[Number, set[Reason]] = defaultdict(set)
    for number, selector in choice.chosen.items():
        roots[number].add(Reason(RootReason.FROM, selector))
    for number, key in choice.overridden.items():
        for consumer in graph.consumers(number):
            roots[consumer].add(Reason(RootReason.CHECKPOINT_OVERRIDE, key))
    for number, key in choice.step_inputs.items():
        roots[number].add(Reason(RootReason.STEP_INPUT_OVERRIDE, key))
    for number in choice.changed:
        roots[number].add(Reason(RootReason.CODE_CHANGED))
    for number in choice.new:
        roots[number].add(Reason(RootReason.NEW_STEP))
    for node in graph.steps:
        if has_nothing_to_reuse(node, choice):
            roots[node.number].add(Reason(RootReason.NOT_COMPLETED))
        for name in node.reads_inputs & choice.touching_inputs:
            roots[node.number].add(Reason(RootReason.FLOW_INPUT_OVERRIDE, name))
    return roots


def has_nothing_to_reuse(node: Node, choice: Choice) -> bool:
    """Whether a recorded step did not complete and has no overridden output either.

    Skipping what was successful keeps nothing else, not even what is overridden.
    """
    if node.succeeded or node.number in choice.new:
        return False
    return choice.mode is Mode.SKIP_SUCCESSFUL or not (node.overridden or node.number in choice.overridden)


def check_skipped(kept: Iterable[Node], names: Mapping[Number, str]) -> list[Problem]:
    """Refuse what cannot be skipped: waits, what did not succeed, and what has an upstream that is not skipped.

    Args:
        kept: What is to be skipped.
        names: The invocation IDs of the steps directly upstream of those. Waits are left out: they are always
            asked again, and what takes their answer is compared with what was recorded.
    """
    kept = sorted(kept, key=lambda node: node.number)
    numbers = {node.number for node in kept}
    found = []
    for node in kept:
        missing = sorted(number for number in node.upstream - numbers if number in names)
        if not node.is_step:
            why = "it is a wait, and waits are always asked again"
        elif not node.succeeded:
            why = "it did not succeed in the execution that is replayed, so there is nothing to reuse"
        elif missing:
            why = f"it comes after {', '.join(names[number] for number in missing)}, which is not skipped"
        else:
            continue
        found.append(problems.usage("CANNOT_SKIP", "skip", f"{node.invocation_id} cannot be skipped: {why}"))
    return found


def check_roots_not_skipped(kept: Mapping[Number, str], roots: Mapping[Number, Collection[Reason]]) -> list[Problem]:
    """Refuse overrides and changed code that make a root of what is skipped; `kept` has the invocation IDs."""
    found = []
    for number in sorted(kept.keys() & roots.keys()):
        reasons = [_told(one) for one in sorted(roots[number]) if one.reason is not RootReason.NOT_COMPLETED]
        if reasons:
            description = f"{kept[number]} cannot be skipped: it must re-execute, because {' and '.join(reasons)}"
            found.append(problems.usage("SKIPPED_ROOT", "skip", description))
    return found


def digest(facts: Mapping[str, object]) -> str:
    """The digest of a plan, 64 hexadecimal digits; equal facts give equal digests."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def _told(reason: Reason) -> str:
    match reason.reason:
        case RootReason.CHECKPOINT_OVERRIDE:
            return f"it takes an output that {reason.cause!r} overrides"
        case RootReason.STEP_INPUT_OVERRIDE:
            return "one of its inputs is overridden"
        case RootReason.CODE_CHANGED:
            return "its code has changed"
        case RootReason.FLOW_INPUT_OVERRIDE:
            return f"it reads the overridden input {reason.cause!r}"
        case RootReason.NEW_STEP:
            return "it is new and has never run"
        case RootReason.FROM | RootReason.NOT_COMPLETED | RootReason.NOT_SKIPPED | RootReason.EVERYTHING:
            return "it is asked to"


def _sorted(roots: Mapping[Number, set[Reason]]) -> dict[Number, tuple[Reason, ...]]:
    return {number: tuple(sorted(roots[number])) for number in sorted(roots)}
