"""Provenance: which outputs an argument is, or contains."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.arguments import call_arguments
from dalsegno.durable import StepFuture
from dalsegno.errors import UsageError
from dalsegno.payloads import from_payload
from dalsegno.provenance import Provenance, bind_arguments, inputs_message
from dalsegno.v1.value_pb2 import Binding, BindingList
from dalsegno.values import encode


def received(provenance: Provenance, value: Any, number: int, output: str = "output") -> Any:
    encoded = encode(value)
    provenance.record(value, number, output, encoded.digest, encoded.canonical)
    return value


def bound(provenance: Provenance, value: Any) -> Binding:
    """What is reported of a value that is passed."""
    return inputs_message({"value": provenance.traced(value)}).bindings["value"]


def edges(binding: Binding) -> set[tuple[int, str]]:
    """All outputs that a binding takes something from."""
    match binding.WhichOneof("kind"):
        case "output":
            refs = [binding.output, *binding.output.alternatives]
            return {(ref.number, ref.output) for ref in refs}
        case "list" | "tuple" as kind:
            items: BindingList = getattr(binding, kind)
            return {edge for item in items.items for edge in edges(item)}
        case "map":
            return {edge for entry in binding.map.entries for edge in edges(entry.value)}
    return set()


@pytest.mark.semantics("5", "The SDK knows which outputs an argument is")
def test_an_output_is_known_by_identity_and_not_by_value() -> None:
    provenance = Provenance()
    rows = received(provenance, [1, 2], 1)
    assert edges(bound(provenance, rows)) == {(1, "output")}
    equal = bound(provenance, [1, 2])
    assert edges(equal) == set()
    assert equal.digest == bound(provenance, rows).digest


@pytest.mark.semantics("5", "or contains, by identity, also inside lists, tuples and dicts")
def test_outputs_are_found_inside_lists_tuples_and_dicts() -> None:
    provenance = Provenance()
    a = received(provenance, {"a": 1}, 1)
    b = received(provenance, "text of b", 2, "text")
    binding = bound(provenance, {"pair": (a, [b, None]), 3: "plain"})
    assert edges(binding) == {(1, "output"), (2, "text")}
    assert [entry.WhichOneof("key") for entry in binding.map.entries] == ["text", "encoded"]
    assert binding.map.entries[0].value.WhichOneof("kind") == "tuple"
    assert binding.digest == encode({"pair": (a, [b, None]), 3: "plain"}).digest
    assert binding.canonical


@pytest.mark.semantics("5", "where one object could be several outputs (True, small integers) all are recorded")
def test_one_object_may_be_several_outputs() -> None:
    provenance = Provenance()
    for number in (1, 2, 3):
        received(provenance, True, number)
    binding = bound(provenance, True)
    assert binding.output.number == 3
    assert edges(binding) == {(1, "output"), (2, "output"), (3, "output")}


@pytest.mark.semantics("5", "None and defaults that were not passed carry no edge (use after=)")
def test_none_carries_no_edge() -> None:
    provenance = Provenance()
    received(provenance, None, 1)
    assert bound(provenance, None).WhichOneof("kind") == "value"


def test_what_the_body_has_changed_is_passed_as_it_is_now() -> None:
    provenance = Provenance()
    rows = received(provenance, [1, 2], 1)
    rows.append(3)
    binding = bound(provenance, rows)
    assert edges(binding) == set()
    assert from_payload(binding.value, None) == [1, 2, 3]


def test_objects_are_kept_so_that_no_identity_is_given_twice() -> None:
    provenance = Provenance()
    for number in range(200):
        received(provenance, [number], number + 1)
    fresh: list[list[int]] = [[-1] for _ in range(200)]
    assert all(edges(bound(provenance, one)) == set() for one in fresh)


def test_flow_inputs_are_bound_by_name_unless_they_are_outputs_too() -> None:
    provenance = Provenance()
    topic = "kitchens and their stoves"
    encoded = encode(topic)
    provenance.record_flow_input(topic, "topic", encoded.digest, True)
    assert bound(provenance, topic).flow_input == "topic"
    received(provenance, topic, 1)
    assert edges(bound(provenance, topic)) == {(1, "output")}


@pytest.mark.semantics("5", "None and defaults that were not passed carry no edge")
def test_defaults_that_were_not_passed_carry_no_edge() -> None:
    def fit(xs: list[int], verbose: bool = True, *more: object, **named: object) -> None: ...

    provenance = Provenance()
    received(provenance, True, 1)
    xs = received(provenance, [1], 2)
    inputs = inputs_message(provenance.trace(bind_arguments(fit, (xs,), {})))
    assert set(inputs.bindings) == {"xs", "verbose", "more", "named"}
    assert inputs.bindings["verbose"].WhichOneof("kind") == "value"
    passed = inputs_message(provenance.trace(bind_arguments(fit, (xs, True, xs), {"key": xs})))
    assert edges(passed.bindings["verbose"]) == {(1, "output")}
    assert edges(passed.bindings["more"]) == edges(passed.bindings["named"]) == {(2, "output")}


def test_wrong_arguments_are_a_usage_error_that_names_them() -> None:
    def fit(xs: list[int], *, rate: float) -> None: ...

    with pytest.raises(UsageError, match=r"fit\(\): missing a required argument: 'rate'; it takes fit\(xs"):
        bind_arguments(fit, ([1],), {})
    with pytest.raises(UsageError, match="unexpected keyword argument 'speed'"):
        bind_arguments(fit, ([1],), {"rate": 1.0, "speed": 2})


def test_a_value_without_a_codec_is_refused_with_its_parameter() -> None:
    def fit(source: object) -> None: ...

    with pytest.raises(UsageError, match="'source'"):
        Provenance().trace(bind_arguments(fit, (object(),), {}))


def test_a_future_is_no_argument() -> None:
    future: StepFuture[int] = StepFuture(None, 1, "fit")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"future\.result\(\)"):
        bound(Provenance(), [future])
    with pytest.raises(UsageError, match=r"future\.result\(\)"):
        bound(Provenance(), future)


def test_after_names_calls_in_every_way() -> None:
    def fit() -> None: ...

    fit.name = "fit"  # type: ignore[attr-defined]
    provenance = Provenance()
    for number, invocation_id in ((1, "load"), (2, "fit"), (3, "fit_2")):
        provenance.record_call(number, invocation_id.removesuffix("_2"), invocation_id, {})
    rows = received(provenance, [1], 1)
    future: StepFuture[int] = StepFuture(None, 2, "fit")  # type: ignore[arg-type]
    assert provenance.upstream_of((rows,)) == (1,)
    assert provenance.upstream_of(([rows, future],)) == (1, 2)
    assert provenance.upstream_of(("fit_2",)) == (3,)
    assert provenance.upstream_of((fit,)) == (3,)
    with pytest.raises(UsageError, match="load, fit, fit_2"):
        provenance.upstream_of(("train",))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_the_digest_does_not_depend_on_what_is_known_as_output(value: Any, other: Any) -> None:
    knowing = Provenance()
    received(knowing, value, 1)
    assert bound(knowing, [value, other]).digest == bound(Provenance(), [value, other]).digest


def test_arguments_make_the_same_call_again() -> None:
    def call(a: int, /, b: int, *rest: int, c: int = 3, **named: int) -> tuple[object, ...]:
        return a, b, rest, c, named

    arguments = bind_arguments(call, (1, 2, 4, 5), {"z": 9})
    args, kwargs = call_arguments(call, arguments)
    plain: Any = call
    assert plain(*args, **kwargs) == (1, 2, (4, 5), 3, {"z": 9})
    with pytest.raises(UsageError, match="has no parameter 'gone'"):
        call_arguments(call, {"a": 1, "b": 2, "gone": 3})
    with pytest.raises(UsageError, match="needs 'b', which was not recorded"):
        call_arguments(call, {"a": 1})


def test_an_origin_that_another_one_follows_from_needs_no_edge_of_its_own() -> None:
    provenance = Provenance()
    zero = received(provenance, 0, 1)
    for number in range(2, 500):
        inputs = provenance.trace(bind_arguments(lambda x: x, (zero,), {}))
        provenance.record_call(number, "again", f"again_{number}", inputs)
        assert edges(inputs_message(inputs).bindings["x"]) == {(number - 1, "output")}
        received(provenance, zero, number)


def test_the_latest_of_many_unrelated_origins_are_kept() -> None:
    provenance = Provenance()
    for number in range(1, 1000):
        received(provenance, True, number)
    assert edges(bound(provenance, True)) == {(number, "output") for number in range(936, 1000)}
