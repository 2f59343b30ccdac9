"""What the inputs of many calls have in common: all but the numbers that they refer to and the content of values.

To follow inputs costs more than anything else in an import, and calls of a step mostly have inputs that are the same
byte for byte but for these. Where all other bytes are those of inputs that were followed and found right, lengths
included, these are right, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor

from dalsegno.v1.value_pb2 import Binding, Inputs, OutputRef, Payload

_NUMBER, _CONTENT = 0, 2
"""The two types of fields on the wire that inputs have."""
_CONTENTS = frozenset(
    field.full_name
    for field in (
        Payload.DESCRIPTOR.fields_by_name["digest"],
        Payload.DESCRIPTOR.fields_by_name["inline"],
        Binding.DESCRIPTOR.fields_by_name["digest"],
    )
)
_NUMBER_OF_OUTPUT = OutputRef.DESCRIPTOR.fields_by_name["number"].full_name


class _UnknownPart(Exception):
    """There is a field that this planner does not know."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A place that differs: a number of up to five bytes, or a content.

    Attributes:
        output: The output that is taken of the step with this number; None for a content.
    """

    start: int
    end: int
    output: str | None = None


def shape_of(given: bytes, flow_inputs: Sequence[str]) -> InputShape | None:
    """Return the shape of inputs that were found right; None where they have parts of which nothing is known.

    Args:
        given: They, as a message writes itself.
        flow_inputs: The inputs of the execution that they name.
    """
    try:
        return InputShape(given, list(_holes(Inputs.DESCRIPTOR, given, 0, len(given))), flow_inputs)
    except _UnknownPart:
        return None


class InputShape:
    """Inputs that were found right."""

    def __init__(self, given: bytes, holes: Sequence[Hole], flow_inputs: Sequence[str]) -> None:
        starts = [0, *(hole.end for hole in holes)]
        ends = [*(hole.start for hole in holes), len(given)]
        self.flow_inputs = flow_inputs
        self._fixed = [(start, end, given[start:end]) for start, end in zip(starts, ends, strict=True) if start < end]
        self._numbers = [
            (hole.start, hole.end, *_marks(hole.end - hole.start), hole.output)
            for hole in holes
            if hole.output is not None
        ]

    def references(self, given: bytes) -> list[tuple[int, str]] | None:
        """Return the numbers and outputs that inputs of the same length refer to; None if they have another shape."""
        for start, end, fixed in self._fixed:
            if given[start:end] != fixed:
                return None
        found = []
        for start, end, mask, marks, output in self._numbers:
            number = int.from_bytes(given[start:end], "little")
            if number & mask != marks:
                return None
            found.append((_joined(number), output))
        return found


def _marks(size: int) -> tuple[int, int]:
    """The highest bits of the bytes of a number, and which are set: those of all but the last."""
    mask = int.from_bytes(b"\x80" * size, "little")
    return mask, mask >> 8


def _joined(number: int) -> int:
    """Join groups of seven bits, each the lower ones of a byte."""
    if number < 0x8000:
        return number & 0x7F | number >> 1 & 0x3F80
    lower = number & 0x7F | number >> 1 & 0x3F80 | number >> 2 & 0x1FC000
    return lower | number >> 3 & 0xFE00000 | number >> 4 & 0xF0000000


def _holes(message: Descriptor, data: bytes, at: int, end: int) -> Iterator[Hole]:
    """Find what may differ within a message."""
    output = OutputRef.FromString(data[at:end]).output if message is OutputRef.DESCRIPTOR else None
    while at < end:
        tag, at = _varint(data, at)
        field = message.fields_by_number.get(tag >> 3)
        if field is None or tag & 7 not in (_NUMBER, _CONTENT):
            raise _UnknownPart
        value, after = _varint(data, at)
        if tag & 7 == _NUMBER:
            if field.full_name == _NUMBER_OF_OUTPUT:
                yield Hole(at, after, output)
        else:
            at, after = after, after + value
            if field.message_type is not None:
                yield from _holes(field.message_type, data, at, after)
            elif field.full_name in _CONTENTS:
                yield Hole(at, after)
        at = after


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
