"""Which recorded call a body's call is: the rules of a replay, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.errors import DivergenceKind
from dalsegno_executor.runner.fingerprints import Comparison, Fingerprint, compare
from dalsegno_executor.runner.matching import (
    Action,
    Await,
    CallKind,
    CallSequence,
    Divergence,
    Execute,
    Made,
    OnStale,
    Recorded,
    Reuse,
    Rules,
)


def value(text: str) -> Fingerprint:
    """A plain value with a canonical codec."""
    return Fingerprint(text.encode(), canonical=True)


def output(number: int, text: str = "") -> Fingerprint:
    """An output of a call, with its digest where a text is given."""
    return Fingerprint(text.encode(), bool(text), frozenset({(number, "output")}))


def recorded(number: int, name: str, action: Action = Action.REUSE, **fields: Any) -> Recorded:
    """A recorded step whose position is its number."""
    call = Recorded(number, number, CallKind.STEP, name, name, action, {})
    return call._replace(**fields)


def made(name: str, **inputs: Fingerprint) -> Made:
    """A call that the body makes."""
    return Made(CallKind.STEP, name, name, inputs)


def recording(*names: str, execute: Sequence[str] = ()) -> list[Recorded]:
    """Recorded calls in order, some of which are to execute."""
    return [
        recorded(number, name, Action.EXECUTE if name in execute else Action.REUSE)
        for number, name in enumerate(names, start=1)
    ]


def replaying(
    calls: Sequence[Recorded], *, overridden: Sequence[str] = (), on_stale: OnStale = OnStale.REUSE
) -> CallSequence:
    """The sequence of a replay whose roots are what is to execute."""
    roots = frozenset(call.number for call in calls if call.action is Action.EXECUTE)
    return CallSequence(calls, len(calls) + 1, Rules(frozenset(overridden), on_stale, roots))


def test_a_first_run_executes_everything_under_new_numbers() -> None:
    sequence = CallSequence([], 1, None)
    assert sequence.make(made("a")) == Execute(1, 1)
    assert sequence.make(made("b")) == Execute(2, 2)
    assert sequence.end().divergence is None


@pytest.mark.semantics("5", "For the k-th durable call it makes:")
def test_a_replay_reuses_up_to_the_root_and_executes_from_there() -> None:
    calls = recording("a", "b", "c", execute=["b", "c"])
    sequence = replaying(calls)
    assert sequence.make(made("a")) == Reuse(calls[0], 1)
    assert sequence.make(made("b")) == Execute(2, 2, calls[1])
    sequence.receive(2)
    assert sequence.make(made("c")) == Execute(3, 3, calls[2])
    assert sequence.end().not_reached == ()


@dataclass(frozen=True)
class Departure:
    """A body that does something else than its recording, before anything new has reached it."""

    calls: tuple[Made, ...]
    kind: DivergenceKind
    position: int
    expected: str
    recording: list[Recorded] = field(default_factory=lambda: recording("a", "b", "c", execute=["c"]))


DEPARTURES = {
    "reordered": Departure((made("b"),), DivergenceKind.REORDERED_CALL, 1, "a"),
    "renamed": Departure((made("a"), made("x")), DivergenceKind.RENAMED_CALL, 2, "b"),
    "extra": Departure((made("a"), made("x", p=value("1"))), DivergenceKind.EXTRA_CALL, 2, "b"),
    "another step under the ID": Departure(
        (Made(CallKind.STEP, "x", "a", {"p": value("1")}),), DivergenceKind.EXTRA_CALL, 1, "a"
    ),
    "a wait for a step": Departure((Made(CallKind.WAIT, "a", "a", {}),), DivergenceKind.EXTRA_CALL, 1, "a"),
    "other input": Departure((made("a", p=value("1")),), DivergenceKind.INPUT_CHANGED, 1, "a"),
}


@pytest.mark.parametrize("case", DEPARTURES.values(), ids=DEPARTURES.keys())
@pytest.mark.semantics(
    "5", "call k must be the recorded call k: same kind, name and invocation ID", "Kinds: reordered_call"
)
def test_before_something_new_the_body_must_repeat_itself(case: Departure) -> None:
    sequence = replaying(case.recording)
    *before, last = [sequence.make(call) for call in case.calls]
    assert not any(isinstance(decision, Divergence) for decision in before)
    assert isinstance(last, Divergence)
    assert (last.kind, last.position) == (case.kind, case.position)
    assert last.expected is not None
    assert last.expected.name == case.expected


def test_a_call_beyond_the_recording_is_extra_while_the_root_is_not_received() -> None:
    sequence = replaying(recording("a", execute=["a"]))
    sequence.make(made("a"))
    decision = sequence.make(made("b"))
    assert isinstance(decision, Divergence)
    assert decision.kind is DivergenceKind.EXTRA_CALL


def test_a_recording_that_was_cut_short_goes_on_where_it_ends() -> None:
    sequence = replaying(recording("a"))
    sequence.make(made("a"))
    assert sequence.make(made("b")) == Execute(2, 2)


@pytest.mark.semantics(
    "5", "Affected calls, and calls never recorded, execute.", "After the prefix, calls are matched by invocation ID."
)
def test_after_something_new_calls_are_found_by_id_in_any_order() -> None:
    calls = recording("root", "a", "b", "c", execute=["root"])
    sequence = replaying(calls)
    sequence.make(made("root"))
    sequence.receive(1)
    assert sequence.make(made("b")) == Reuse(calls[2], 2, moved=True)
    assert sequence.make(made("new")) == Execute(5, 3)
    assert sequence.make(made("c")) == Reuse(calls[3], 4)
    assert sequence.end().not_reached == (2,)


@pytest.mark.semantics("5", "Until the body has received something new")
def test_something_new_counts_only_once_it_is_received() -> None:
    sequence = replaying(recording("root", "a", "b", execute=["root"]))
    sequence.make(made("root"))
    decision = sequence.make(made("b"))
    assert isinstance(decision, Divergence)
    assert decision.kind is DivergenceKind.REORDERED_CALL


def test_an_overridden_output_is_new() -> None:
    calls = recording("a", "b", "c")
    calls[0] = calls[0]._replace(override_is_new=True)
    sequence = replaying(calls)
    assert isinstance(sequence.make(made("a")), Reuse)
    sequence.receive(1)
    assert sequence.make(made("c")) == Reuse(calls[2], 2, moved=True)


def test_an_override_of_an_earlier_replay_is_not_new() -> None:
    calls = recording("a", "b", "c")
    sequence = replaying(calls)
    sequence.make(made("a"))
    sequence.receive(1)
    assert isinstance(sequence.make(made("c")), Divergence)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.semantics("5", "(a) the body has received something new → the call is affected after all, and re-executes")
def test_a_reused_call_with_other_inputs_executes_after_something_new(same: bool) -> None:
    calls = recording("root", "a", execute=["root"])
    calls[1] = calls[1]._replace(inputs={"p": value("old")})
    sequence = replaying(calls)
    sequence.make(made("root"))
    sequence.receive(1)
    decision = sequence.make(made("a", p=value("old" if same else "new")))
    assert decision == (Reuse(calls[1], 2) if same else Execute(2, 2, calls[1]))


def test_what_follows_a_call_that_executed_after_all_is_never_reused() -> None:
    calls = recording("root", "a", "b", "c", execute=["root"])
    calls[1] = calls[1]._replace(inputs={"p": value("old")})
    calls[2] = calls[2]._replace(inputs={"p": output(2, "same")})
    sequence = replaying(calls)
    sequence.make(made("root"))
    sequence.receive(1)
    assert isinstance(sequence.make(made("a", p=value("new"))), Execute)
    assert sequence.make(made("b", p=output(2, "same"))) == Execute(3, 3, calls[2])
    after = Made(CallKind.STEP, "c", "c", {}, frozenset({3}))
    assert sequence.make(after) == Execute(4, 4, calls[3])


STALE = {
    OnStale.REUSE: Reuse(recorded(1, "a")._replace(inputs={"p": value("old")}), 1, stale_inputs=True),
    OnStale.RERUN: Execute(1, 1, recorded(1, "a")._replace(inputs={"p": value("old")})),
}


@pytest.mark.parametrize("on_stale", STALE)
@pytest.mark.semantics("5", "(b) flow inputs were overridden → reuse, and mark the invocation stale_inputs")
def test_an_overridden_flow_input_makes_inputs_stale_or_counts_as_new(on_stale: OnStale) -> None:
    calls = [recorded(1, "a")._replace(inputs={"p": value("old")})]
    sequence = replaying(calls, overridden=["topic"], on_stale=on_stale)
    assert sequence.make(made("a", p=value("new"))) == STALE[on_stale]


@pytest.mark.semantics("5", '"fail" refuses); (c) neither → divergence')
def test_stale_inputs_can_be_refused() -> None:
    calls = [recorded(1, "a")._replace(inputs={"p": value("old")})]
    sequence = replaying(calls, overridden=["topic"], on_stale=OnStale.FAIL)
    decision = sequence.make(made("a", p=value("new")))
    assert isinstance(decision, Divergence)
    assert (decision.kind, decision.inputs) == (DivergenceKind.INPUT_CHANGED, ("p",))


def test_a_divergence_names_the_overridden_inputs_that_may_have_caused_it() -> None:
    sequence = replaying(recording("a", "b"), overridden=["topic"])
    decision = sequence.make(made("b"))
    assert isinstance(decision, Divergence)
    assert decision.inputs == ("topic",)


@pytest.mark.parametrize(
    ("calls", "body", "kind"),
    [
        (recording("a", "b", "c", execute=["c"]), ["a"], DivergenceKind.MISSING_CALL),
        (recording("a", "b", execute=["b"]), ["a"], DivergenceKind.ROOT_NOT_REACHED),
    ],
)
@pytest.mark.semantics(
    "5",
    "At the end: if there were roots, none was reached and the body received nothing new: divergence.",
    "missing_call (the body ended before a reused call), root_not_reached",
)
def test_a_body_that_ends_early_without_anything_new_has_diverged(
    calls: list[Recorded], body: list[str], kind: DivergenceKind
) -> None:
    sequence = replaying(calls)
    for name in body:
        sequence.make(made(name))
    divergence = sequence.end().divergence
    assert divergence is not None
    assert (divergence.kind, divergence.position) == (kind, len(body) + 1)


def test_a_body_that_raises_reaches_the_rest_not() -> None:
    sequence = replaying(recording("a", "b", "c", execute=["c"]))
    sequence.make(made("a"))
    assert sequence.end(failed=True).not_reached == (2, 3)


@pytest.mark.semantics("5", "a new wait's answer")
def test_waits_of_the_source_are_asked_again_and_their_answers_are_new() -> None:
    calls = recording("a", "approve", "b")
    calls[1] = calls[1]._replace(kind=CallKind.WAIT)
    sequence = replaying(calls)
    sequence.make(made("a"))
    assert sequence.make(Made(CallKind.WAIT, "approve", "approve", {})) == Execute(2, 2, calls[1])
    sequence.receive(2)
    assert sequence.make(made("new")) == Execute(4, 3)


def recovering(*calls: Recorded) -> CallSequence:
    """The sequence of a body that is recovered."""
    return CallSequence([call._replace(own=True) for call in calls], len(calls) + 1, None)


@pytest.mark.semantics("5", "every finished call is reused")
def test_recovery_reuses_what_ended_and_awaits_what_is_under_way() -> None:
    sequence = recovering(recorded(1, "a"), recorded(2, "b", Action.AWAIT), recorded(3, "c", Action.EXECUTE))
    assert isinstance(sequence.make(made("a")), Reuse)
    assert isinstance(sequence.make(made("b")), Await)
    decision = sequence.make(made("c"))
    assert isinstance(decision, Execute)
    assert decision.number == 3
    assert sequence.make(made("d")) == Execute(4, 4)


@pytest.mark.semantics("5", "the whole recorded sequence is the prefix")
def test_recovery_knows_no_freedom_after_something_new() -> None:
    sequence = recovering(recorded(1, "a"), recorded(2, "b"))
    sequence.make(made("a"))
    sequence.receive(1)
    decision = sequence.make(made("x"))
    assert isinstance(decision, Divergence)
    assert decision.position == 2


def test_recovery_fills_the_gap_of_a_call_that_left_no_trace() -> None:
    sequence = recovering(recorded(1, "b")._replace(position=2))
    assert sequence.make(made("a")) == Execute(2, 1)
    assert isinstance(sequence.make(made("b")), Reuse)


def test_a_recovered_replay_meets_its_own_calls_where_it_made_them() -> None:
    calls = [
        recorded(1, "root", own=True),
        recorded(4, "new", own=True, position=2),
        recorded(2, "a", position=3),
        recorded(3, "b", Action.EXECUTE, own=True, position=4),
    ]
    sequence = CallSequence(calls, 5, Rules(roots=frozenset({1})))
    assert isinstance(sequence.make(made("root")), Reuse)
    sequence.receive(1)
    assert isinstance(sequence.make(made("new")), Reuse)
    sequence.receive(4)
    decision = sequence.make(made("b"))
    assert isinstance(decision, Execute)
    assert decision.number == 3
    assert isinstance(sequence.make(made("a")), Reuse)


def test_a_recovered_body_that_ends_before_its_own_calls_has_diverged() -> None:
    sequence = recovering(recorded(1, "a"), recorded(2, "b"))
    sequence.make(made("a"))
    divergence = sequence.end().divergence
    assert divergence is not None
    assert divergence.kind is DivergenceKind.MISSING_CALL


COMPARISONS = {
    "equal digests": (value("x"), value("x"), Comparison.SAME),
    "canonical and different": (value("x"), value("y"), Comparison.DIFFERENT),
    "not canonical": (Fingerprint(b"x"), Fingerprint(b"y"), Comparison.UNKNOWN),
    "not canonical, same output": (
        output(1)._replace(digest=b"x"),
        output(1)._replace(digest=b"y"),
        Comparison.SAME,
    ),
    "not canonical, other output": (output(1), output(2), Comparison.DIFFERENT),
    "one of the outputs that it could be": (
        Fingerprint(sources=frozenset({(1, "output"), (2, "output")})),
        output(2),
        Comparison.SAME,
    ),
    "parts": (
        Fingerprint(parts=(("0", value("x")), ("1", output(1)))),
        Fingerprint(parts=(("0", value("y")), ("1", output(1)))),
        Comparison.DIFFERENT,
    ),
    "other number of parts": (
        Fingerprint(parts=(("0", value("x")),)),
        Fingerprint(parts=(("0", value("x")), ("1", value("x")))),
        Comparison.DIFFERENT,
    ),
}


@pytest.mark.parametrize(("before", "now", "expected"), COMPARISONS.values(), ids=COMPARISONS.keys())
@pytest.mark.semantics(
    "5",
    "Their inputs are compared with those recorded.",
    "Inputs are compared by digest where the codec is canonical; otherwise by output where that is known",
)
def test_inputs_are_compared_by_digest_where_it_proves_something(
    before: Fingerprint, now: Fingerprint, expected: Comparison
) -> None:
    assert compare(before, now, frozenset()) is expected


def test_a_flow_input_that_is_overridden_is_another_value() -> None:
    before = Fingerprint(b"x", sources=frozenset({(0, "topic")}))
    now = Fingerprint(b"y", sources=frozenset({(0, "topic")}))
    assert compare(before, now, frozenset()) is Comparison.SAME
    assert compare(before, now, frozenset({"topic"})) is Comparison.DIFFERENT


@pytest.mark.semantics("5", "a differing digest of a codec that is not canonical is never a divergence by itself")
def test_a_differing_digest_that_proves_nothing_is_no_divergence() -> None:
    call = recorded(1, "a")._replace(inputs={"p": Fingerprint(b"x")})
    assert isinstance(replaying([call]).make(made("a", p=Fingerprint(b"y"))), Reuse)


def test_what_is_overridden_of_a_call_that_was_not_made_is_found_by_its_id() -> None:
    """It has no place in the sequence: nothing waits for it, and it is in nobody's way."""
    unmade = recorded(3, "c", Action.EXECUTE, position=0)
    calls = [*recording("a", "b", execute=["b"]), unmade]
    skipping = CallSequence(calls, 4, Rules(roots=frozenset([2])))
    making = CallSequence(calls, 4, Rules(roots=frozenset([2])))
    for sequence in (skipping, making):
        assert isinstance(sequence.make(made("a")), Reuse)
        assert sequence.make(made("b")) == Execute(2, 2, calls[1])
        sequence.receive(2)
    assert skipping.end().not_reached == ()
    assert making.make(made("c")) == Execute(3, 3, unmade)
    assert making.make(made("d")) == Execute(4, 4)


def test_a_call_past_the_end_of_a_recording_may_be_one_that_was_not_made() -> None:
    unmade = recorded(2, "b", Action.EXECUTE, position=0)
    sequence = CallSequence([recorded(1, "a"), unmade], 3, Rules())
    assert isinstance(sequence.make(made("a")), Reuse)
    assert sequence.make(made("b")) == Execute(2, 2, unmade)


@given(st.integers(1, 12), st.data())
def test_a_body_that_repeats_itself_never_diverges(length: int, data: st.DataObject) -> None:
    """Whatever executes, a body that makes the recorded calls gets its own numbers back, in order."""
    names = [f"s{number}" for number in range(length)]
    execute = data.draw(st.sets(st.sampled_from(names)))
    sequence = replaying(recording(*names, execute=sorted(execute)))
    for number, name in enumerate(names, start=1):
        decision = sequence.make(made(name))
        assert isinstance(decision, Execute if name in execute else Reuse)
        found = decision.number if isinstance(decision, Execute) else decision.recorded.number
        assert found == number
        sequence.receive(number)
    ending = sequence.end()
    assert (ending.divergence, ending.not_reached) == (None, ())


@given(st.integers(1, 10), st.data())
def test_every_call_and_every_recorded_call_is_accounted_for_once(length: int, data: st.DataObject) -> None:
    """After something new any order goes: calls and `not_reached` together are what is recorded, and what is new."""
    names = [f"s{number}" for number in range(length)]
    body = data.draw(st.lists(st.sampled_from([*names, "x", "y"]), unique=True))
    sequence = replaying(recording("root", *names, execute=["root"]))
    sequence.make(made("root"))
    sequence.receive(1)
    numbers = []
    for name in body:
        decision = sequence.make(made(name))
        assert isinstance(decision, Execute | Reuse)
        numbers.append(decision.number if isinstance(decision, Execute) else decision.recorded.number)
    ending = sequence.end()
    assert ending.divergence is None
    assert len(set(numbers)) == len(numbers)
    known = [number for number in numbers if number <= length + 1]
    assert sorted([*known, *ending.not_reached]) == list(range(2, length + 2))
    assert sorted(set(numbers) - set(known)) == list(range(length + 2, length + 2 + len(set(body) - set(names))))
