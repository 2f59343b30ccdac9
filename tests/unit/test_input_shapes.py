"""Shapes of inputs: what they tell is what following the inputs tells, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.payloads import inline_payload
from dalsegno.v1.value_pb2 import Binding, BindingEntry, BindingList, BindingMap, Inputs, OutputRef
from dalsegno.values import encode
from dalsegno_planner.rpc.input_shapes import InputShape, shape_of
from dalsegno_planner.store.bindings import references

numbers = st.integers(1, 2**31 - 1) | st.integers(1, 300) | st.sampled_from([127, 128, 16_383, 16_384, 2_097_152])
outputs = st.builds(OutputRef, number=numbers, output=st.sampled_from(["output", "left", "\x08\x01", ""]))
with_alternatives = st.builds(
    OutputRef, number=numbers, output=st.just("output"), alternatives=st.lists(outputs, max_size=2)
)
values = st.integers(-3, 300).map(lambda value: inline_payload(encode(value)))
leaves = (
    st.builds(Binding, output=outputs | with_alternatives)
    | st.builds(Binding, value=values)
    | st.builds(Binding, flow_input=st.just("lr"), digest=st.binary(min_size=32, max_size=32))
)
bindings = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Binding, list=st.builds(BindingList, items=st.lists(inner, max_size=3)))
        | st.builds(
            Binding,
            map=st.builds(BindingMap, entries=st.lists(st.builds(BindingEntry, text=st.just("k"), value=inner))),
        )
    ),
    max_leaves=5,
)
inputs = st.dictionaries(st.sampled_from(["x", "y"]), bindings, max_size=2).map(lambda given: Inputs(bindings=given))


def told(shape: InputShape | None, data: bytes) -> frozenset[tuple[int, str]] | None:
    assert shape is not None
    found = shape.references(data)
    return None if found is None else frozenset(found)


@given(inputs)
def test_inputs_have_their_own_shape(one: Inputs) -> None:
    data = one.SerializeToString()
    assert told(shape_of(data, []), data) == references(one).outputs


@given(inputs, inputs)
def test_a_shape_tells_the_truth_of_others_or_nothing(one: Inputs, other: Inputs) -> None:
    data = other.SerializeToString()
    if len(data) == one.ByteSize():
        assert told(shape_of(one.SerializeToString(), []), data) in (None, references(other).outputs)


@given(st.lists(numbers, min_size=2, max_size=2), st.lists(numbers, min_size=2, max_size=2))
def test_only_numbers_and_contents_may_differ(first: list[int], second: list[int]) -> None:
    def fan_in(taken: list[int], value: int) -> Inputs:
        items = [Binding(output=OutputRef(number=number, output="output")) for number in taken]
        payload = inline_payload(encode(value))
        return Inputs(
            bindings={
                "x": Binding(list=BindingList(items=items)),
                "k": Binding(value=payload, digest=payload.digest, canonical=True),
            }
        )

    one, other = fan_in(first, 17).SerializeToString(), fan_in(second, 42).SerializeToString()
    sizes = [[len(OutputRef(number=number).SerializeToString()) for number in taken] for taken in (first, second)]
    if sizes[0] == sizes[1]:
        assert told(shape_of(one, []), other) == frozenset((number, "output") for number in second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Binding(output=OutputRef(number=1, output="ab")), Binding(output=OutputRef(number=1, output="ac"))),
        (Binding(flow_input="ab"), Binding(flow_input="ac")),
        (Binding(list=BindingList()), Binding(tuple=BindingList())),
        (
            Binding(output=OutputRef(number=1, output="abc")),
            Binding(output=OutputRef(number=200, output="ab")),
        ),
        (
            Binding(list=BindingList(items=[Binding(output=OutputRef(number=n, output="a")) for n in (1, 200)])),
            Binding(list=BindingList(items=[Binding(output=OutputRef(number=n, output="a")) for n in (200, 1)])),
        ),
    ],
)
def test_anything_else_is_another_shape(one: Binding, other: Binding) -> None:
    first, second = (Inputs(bindings={"x": binding}).SerializeToString() for binding in (one, other))
    assert len(first) == len(second)
    assert told(shape_of(first, []), second) is None


def test_what_is_not_known_has_no_shape() -> None:
    assert shape_of(Inputs().SerializeToString() + b"\x48\x01", []) is None
