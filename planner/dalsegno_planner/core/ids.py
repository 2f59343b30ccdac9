"""IDs that carry what they belong to.

An execution's ID is a UUIDv7 (RFC 9562) whose low 40 bits are a function of the upper 88. The IDs of its calls and of
their outputs have the same upper bits, and a position folded into the low ones. So a call or artifact ID leads to its
row by the primary key, without an index of its own, wherever the execution's rows are kept:

    low 40 bits = seal(upper 88 bits) xor scatter(number << 8 | slot)

with slot 0 for the call itself and slot i + 1 for its i-th output. `scatter` is a bijection on 40 bits that spreads
neighbouring numbers, so that calls of one execution differ visibly in their last digits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType
from uuid import UUID

ExecutionId = NewType("ExecutionId", UUID)
CallId = NewType("CallId", UUID)
ArtifactId = NewType("ArtifactId", UUID)
Number = NewType("Number", int)
InvocationId = NewType("InvocationId", str)

BODY = Number(0)
"""The number of the task that runs the body of a flow."""

MAX_NUMBER = 2**32 - 1
MAX_OUTPUTS = 254

_LOW_BITS = 40
_LOW_MASK = (1 << _LOW_BITS) - 1
_SPREAD = 0x9E3779B97B  # odd, so that multiplication is a bijection modulo 2**40
_UNSPREAD = pow(_SPREAD, -1, 1 << _LOW_BITS)


@dataclass(frozen=True, slots=True)
class ParsedId:
    """What an ID carries. `number` is 0 for an execution; `output` is None for anything but an artifact."""

    execution_id: ExecutionId
    number: Number
    output: int | None


def uuid7(milliseconds: int, random_bits: int) -> UUID:
    """Return the UUIDv7 of a moment in Unix milliseconds and 74 random bits."""
    high = milliseconds << 80 | 0x7 << 76 | (random_bits >> 62) << 64
    return UUID(int=high | 0b10 << 62 | random_bits & ((1 << 62) - 1))


def execution_id(milliseconds: int, random_bits: int) -> ExecutionId:
    """Return the execution ID of a moment in Unix milliseconds and 74 random bits."""
    upper = uuid7(milliseconds, random_bits).int >> _LOW_BITS
    return ExecutionId(UUID(int=upper << _LOW_BITS | _seal(upper)))


def call_id(execution_id: UUID, number: int) -> CallId:
    """Return the ID of the call with this number."""
    return CallId(_fold(execution_id, number << 8))


def artifact_id(execution_id: UUID, number: int, output: int) -> ArtifactId:
    """Return the ID of an output of a call, by its index in the order of declaration."""
    return ArtifactId(_fold(execution_id, number << 8 | (output + 1)))


def parse_id(value: UUID) -> ParsedId:
    """Return what an ID carries. Any UUID parses; whether the execution exists is for the caller to look up."""
    upper, low = value.int >> _LOW_BITS, value.int & _LOW_MASK
    place = ((low ^ _seal(upper)) * _UNSPREAD) & _LOW_MASK
    execution_id = ExecutionId(UUID(int=upper << _LOW_BITS | _seal(upper)))
    number, slot = place >> 8, place & 0xFF
    return ParsedId(execution_id, Number(number), slot - 1 if slot else None)


def _fold(execution_id: UUID, place: int) -> UUID:
    return UUID(int=execution_id.int ^ (place * _SPREAD & _LOW_MASK))


def _seal(upper: int) -> int:
    return int.from_bytes(hashlib.blake2b(upper.to_bytes(11, "big"), digest_size=5).digest(), "big")
