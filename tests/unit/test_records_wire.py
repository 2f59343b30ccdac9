"""Fields of messages that are written directly are what protobuf writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.records.values import ValueReader
from dalsegno.records.wire import content_start, map_entry, number_tag, text_field, varint
from dalsegno.v1.value_pb2 import Binding, Inputs, Output, OutputRef, Payload
from dalsegno.values import encode
from tests.unit.test_records import Shelf

BOUNDARIES = [0, 1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21, 2**28, 2**32 - 1]


@pytest.mark.parametrize("number", BOUNDARIES)
def test_numbers(number: int) -> None:
    written = number_tag(OutputRef.DESCRIPTOR, "number") + varint(number)
    assert OutputRef.FromString(written).number == number
    assert number == 0 or written == OutputRef(number=number).SerializeToString()


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 2**21])
def test_contents(length: int) -> None:
    content = b"x" * length
    written = content_start(Payload.DESCRIPTOR, "inline")(length) + content
    assert written == Payload(inline=content).SerializeToString()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_texts(text: str) -> None:
    assert text_field(Output.DESCRIPTOR, "name")(text) == Output(name=text).SerializeToString()


def test_entries_of_maps() -> None:
    entry = map_entry(Inputs.DESCRIPTOR, "bindings")
    key = text_field(entry, "key")("x")
    written = content_start(Inputs.DESCRIPTOR, "bindings")(len(key)) + key
    assert list(Inputs.FromString(written).bindings) == ["x"]


def test_small_values_that_are_equal_stay_different() -> None:
    reader = ValueReader(Shelf())
    for value in (1, True, 1.0, 0, False, 0.0, -0.0, "1", None, "", [1], {"b": 1, "a": 2}) * 2:
        encoded = encode(value)
        payload = Payload.FromString(reader.payload(value))
        assert (payload.inline, payload.digest) == (encoded.data, encoded.digest)
        assert (payload.codec, payload.size, payload.canonical) == ("json", len(encoded.data), True)
        binding = Binding.FromString(reader.binding(value))
        assert (binding.value, binding.digest, binding.canonical) == (payload, encoded.digest, True)
