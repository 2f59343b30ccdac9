"""Which recorded call a durable call of a body is, and what is to be done with it.

The rules are those of "How a flow replays". A body that is recovered after a crash, or resumed after a wait, meets the
calls that it has made (`Recorded.own`) at the positions that they had, and nothing else is accepted there. A body
that replays meets the calls of its source:

1.  Until the body has received something new, call k must be the recorded call k.
2.  A reused call whose inputs differ (a) executes after all, if the body has received something new; (b) is reused
    and marked stale, if flow inputs are overridden; (c) diverges otherwise.
3.  Affected calls execute. After the prefix, calls are found by invocation ID; what is not recorded executes.
4.  At the end, a body that reached no root and received nothing new has diverged; otherwise what is left is
    `not_reached`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import NamedTuple, TypeAlias

from dalsegno.errors import DivergenceKind
from dalsegno_executor.runner.fingerprints import Comparison, Inputs, differing_inputs


class CallKind(StrEnum):
    """What a durable call is."""

    STEP = "step"
    WAIT = "wait"


class Action(StrEnum):
    """What the plan says of a recorded call."""

    REUSE = "reuse"
    EXECUTE = "execute"
    AWAIT = "await"


class OnStale(StrEnum):
    """What happens to a reused call whose inputs differ only because flow inputs are overridden."""

    REUSE = "reuse"
    RERUN = "rerun"
    FAIL = "fail"


class Recorded(NamedTuple):
    """A recorded call. One at position 0 was not made: only what is overridden of it is recorded."""

    number: int
    position: int
    kind: CallKind
    name: str
    invocation_id: str
    action: Action
    inputs: Inputs
    own: bool = False
    override_is_new: bool = False


class Made(NamedTuple):
    """A call that the body makes."""

    kind: CallKind
    name: str
    invocation_id: str
    inputs: Inputs
    after: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """How a replay treats the recorded calls of its source."""

    overridden_inputs: frozenset[str] = frozenset()
    on_stale: OnStale = OnStale.REUSE
    roots: frozenset[int] = frozenset()


class Reuse(NamedTuple):
    """The recorded outcome is given to the body; `moved` says that it is recorded at another position."""

    recorded: Recorded
    position: int
    stale_inputs: bool = False
    moved: bool = False


class Execute(NamedTuple):
    """The call runs; `recorded` is the recorded call with its number, if there is one."""

    number: int
    position: int
    recorded: Recorded | None = None


class Await(NamedTuple):
    """The call was submitted before; its outcome comes by itself."""

    recorded: Recorded
    position: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """The body does not repeat what is recorded.

    Attributes:
        position: Of the call that came, or that was missing.
        recorded_at: The position at which the call that came is recorded; 0 where it is not.
        in_replay: Whether the recording is another execution's; otherwise it is the body's own.
        inputs: Those that differ; otherwise the overridden flow inputs that may have caused it.
        before: The last calls before it.
        following: The recorded calls next after the expected one.
    """

    kind: DivergenceKind
    position: int
    expected: Recorded | None
    actual: Made | None
    recorded_at: int = 0
    in_replay: bool = True
    inputs: tuple[str, ...] = ()
    before: tuple[Made, ...] = ()
    following: tuple[Recorded, ...] = ()


_NEIGHBOURS = 3
"""How many calls before and after a divergence are shown with it."""

Decision: TypeAlias = Reuse | Execute | Await | Divergence


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of a body means: the recorded calls that it did not make, or that it has diverged."""

    not_reached: tuple[int, ...] = ()
    divergence: Divergence | None = None


class CallSequence:
    """The durable call sequence of one run of a body.

    Args:
        recorded: What is recorded, in any order.
        next_number: The number for the next call that is not recorded.
        rules: Those of the replay; None where the body is started or recovered, so that every recorded call is its own.
    """

    def __init__(self, recorded: Iterable[Recorded], next_number: int, rules: Rules | None) -> None:
        known = sorted(recorded, key=lambda call: call.position)
        calls = [call for call in known if call.position > 0]
        self._rules = rules
        # Calls that a replay is to execute are its own too, and have not been made yet.
        self._own = {
            call.position: call for call in calls if rules is None or (call.own and call.action is not Action.EXECUTE)
        }
        self._source = {call.position: call for call in calls if call.position not in self._own}
        self._by_id = {call.invocation_id: call for call in known}
        self._recorded = calls
        self._last_own = max(self._own, default=0)
        self._next_number = next_number
        self._position = 0
        self._made: set[int] = set()
        self._latest: deque[Made] = deque(maxlen=_NEIGHBOURS)
        # Calls whose values are new to a replay: those that it has executed, and those whose output is overridden.
        self._fresh: set[int] = set()
        self._received_new = rules is not None and bool(rules.overridden_inputs) and rules.on_stale is OnStale.RERUN

    def make(self, made: Made) -> Decision:
        """Take the body's next call, and say what is to be done."""
        self._position += 1
        found = self._find(made)
        if isinstance(found, Divergence):
            return found
        decision = self._decide(found, made)
        self._latest.append(made)
        if isinstance(decision, Execute):
            self._fresh.add(decision.number)
        if found is not None:
            self._made.add(found.number)
        return decision

    def receive(self, number: int) -> None:
        """Note that the body has received the outcome of a call."""
        if number in self._fresh:
            self._received_new = True

    def end(self, *, failed: bool = False) -> Ending:
        """Say what the end of the body means; `failed` where an exception of its own has ended it."""
        left = [call for call in self._recorded if call.number not in self._made]
        not_reached = tuple(call.number for call in left)
        if failed or not left:
            return Ending(not_reached)
        own = next((call for call in left if self._own.get(call.position) is call), None)
        if own is not None:
            return Ending(divergence=self._divergence(DivergenceKind.MISSING_CALL, own, None))
        if self._received_new:
            return Ending(not_reached)
        reused = next((call for call in left if call.action is Action.REUSE), None)
        if reused is not None:
            return Ending(divergence=self._divergence(DivergenceKind.MISSING_CALL, reused, None))
        roots = self._rules.roots if self._rules is not None else frozenset()
        if roots and self._made.isdisjoint(roots):
            return Ending(divergence=self._divergence(DivergenceKind.ROOT_NOT_REACHED, left[0], None))
        return Ending(not_reached)

    # Which recorded call it is.

    def _find(self, made: Made) -> Recorded | Divergence | None:
        own = self._own.get(self._position)
        if own is not None:
            return own if _same_call(own, made) else self._mismatch(own, made)
        found = self._by_id.get(made.invocation_id)
        if found is not None and self._own.get(found.position) is found:
            return self._divergence(DivergenceKind.REORDERED_CALL, None, made)
        if self._position < self._last_own or self._rules is None:
            # Several calls can be under way at once. One that had not ended when the body was lost left no trace.
            return found
        return found if self._received_new else self._next_of_prefix(made, found, self._rules)

    def _next_of_prefix(self, made: Made, found: Recorded | None, rules: Rules) -> Recorded | Divergence | None:
        expected = self._source.get(self._position)
        if expected is not None:
            return expected if _same_call(expected, made) else self._mismatch(expected, made)
        # Past the end of a recording that was cut short nothing is expected. Where something was to re-execute,
        # the body has made its calls without having received anything of theirs, and ought to repeat itself.
        if rules.roots:
            return self._divergence(DivergenceKind.EXTRA_CALL, None, made)
        return found if found is not None and found.position == 0 else None

    def _mismatch(self, expected: Recorded, made: Made) -> Divergence:
        found = self._by_id.get(made.invocation_id)
        if found is not None and found.position > self._position and _same_call(found, made):
            return self._divergence(DivergenceKind.REORDERED_CALL, expected, made)
        if (
            made.kind is expected.kind
            and (found is None or not _same_call(found, made))
            and not self._differences(expected, made)
        ):
            return self._divergence(DivergenceKind.RENAMED_CALL, expected, made)
        return self._divergence(DivergenceKind.EXTRA_CALL, expected, made)

    # What is to be done with it.

    def _decide(self, found: Recorded | None, made: Made) -> Decision:
        if found is None:
            number, self._next_number = self._next_number, self._next_number + 1
            return Execute(number, self._position)
        own = self._own.get(found.position) is found
        if found.action is Action.AWAIT:
            self._fresh.add(found.number)
            return Await(found, self._position)
        if found.action is Action.EXECUTE or (found.kind is CallKind.WAIT and not own):
            return Execute(found.number, self._position, found)
        if own:
            return self._reuse_own(found, made)
        return self._reuse_recorded(found, made)

    def _reuse_own(self, found: Recorded, made: Made) -> Decision:
        self._fresh.add(found.number)
        changed = _proven(self._differences(found, made))
        if changed:
            return self._divergence(DivergenceKind.INPUT_CHANGED, found, made, changed)
        return Reuse(found, self._position)

    def _reuse_recorded(self, found: Recorded, made: Made) -> Decision:
        if self._follows_fresh(found, made):
            return Execute(found.number, self._position, found)
        differences = self._differences(found, made)
        if differences and self._received_new:
            return Execute(found.number, self._position, found)
        # The consumers of an override of an earlier replay were recorded with it.
        if found.override_is_new:
            self._fresh.add(found.number)
        moved = self._position != found.position
        changed = _proven(differences) if differences else ()
        if not changed:
            return Reuse(found, self._position, moved=moved)
        rules = self._rules
        if rules is None or not rules.overridden_inputs or rules.on_stale is OnStale.FAIL:
            return self._divergence(DivergenceKind.INPUT_CHANGED, found, made, changed)
        return Reuse(found, self._position, stale_inputs=True, moved=moved)

    def _follows_fresh(self, found: Recorded, made: Made) -> bool:
        """Return whether it takes something that is new, or comes after it: nothing downstream is ever reused."""
        if not self._fresh:
            return False
        if not self._fresh.isdisjoint(made.after):
            return True
        return any(
            number in self._fresh
            for inputs in (found.inputs, made.inputs)
            for fingerprint in inputs.values()
            for number, _ in fingerprint.all_sources()
        )

    def _differences(self, found: Recorded, made: Made) -> dict[str, Comparison]:
        overridden = self._rules.overridden_inputs if self._rules is not None else frozenset[str]()
        return differing_inputs(found.inputs, made.inputs, overridden)

    def _divergence(
        self, kind: DivergenceKind, expected: Recorded | None, actual: Made | None, inputs: Sequence[str] = ()
    ) -> Divergence:
        overridden = self._rules.overridden_inputs if self._rules is not None else frozenset[str]()
        position = self._position + 1 if actual is None else self._position
        found = self._by_id.get(actual.invocation_id) if actual is not None else None
        return Divergence(
            kind,
            position,
            expected,
            actual,
            recorded_at=found.position if found is not None and actual is not None and _same_call(found, actual) else 0,
            in_replay=self._rules is not None,
            inputs=tuple(inputs) or tuple(sorted(overridden)),
            before=tuple(self._latest),
            following=() if expected is None else self._following(expected),
        )

    def _following(self, expected: Recorded) -> tuple[Recorded, ...]:
        later = (
            call
            for call in self._recorded
            if call.position > expected.position and call.number not in self._made and call is not expected
        )
        return tuple(islice(later, _NEIGHBOURS))


def _proven(differences: Mapping[str, Comparison]) -> tuple[str, ...]:
    """Return the inputs that are proven to differ. A digest that is not canonical proves nothing."""
    return tuple(name for name, found in differences.items() if found is Comparison.DIFFERENT)


def _same_call(recorded: Recorded, made: Made) -> bool:
    return recorded.invocation_id == made.invocation_id and recorded.name == made.name and recorded.kind is made.kind
