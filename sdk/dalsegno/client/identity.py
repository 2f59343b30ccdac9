"""IDs as users give and get them."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from dalsegno.errors import UsageError

# An execution's last 40 bits are a function of the others; those of its calls and outputs have the number of the call
# and the index of the output folded in, as the planner does it.
_LOW_BITS = 40
_LOW_MASK = (1 << _LOW_BITS) - 1
_SPREAD = 0x9E3779B97B


def output_id(call_id: UUID, number: int, index: int) -> UUID:
    """Return the ID of an output of a call."""
    return UUID(int=call_id.int ^ _folded(number, 0) ^ _folded(number, index + 1))


def call_in_execution(execution_id: UUID, number: int) -> UUID:
    """Return the ID that a call has in an execution, whoever supplied its outputs."""
    return UUID(int=execution_id.int ^ _folded(number, 0))


def execution_of(id: UUID) -> UUID:
    """Return the execution that the ID of a call or an output carries."""
    upper = id.int >> _LOW_BITS
    seal = hashlib.blake2b(upper.to_bytes(11, "big"), digest_size=5).digest()
    return UUID(int=upper << _LOW_BITS | int.from_bytes(seal, "big"))


def _folded(number: int, slot: int) -> int:
    return (number << 8 | slot) * _SPREAD & _LOW_MASK


def execution_text(execution: object) -> str:
    """Return how a request names an execution that the user gave: as text, a UUID, or an object with an ``exec_id``.

    Raises:
        UsageError: If it is blank, or nothing of the kind.
    """
    named: Any = getattr(execution, "exec_id", execution)
    if isinstance(named, UUID):
        return str(named)
    if isinstance(named, str) and named.strip():
        return named.strip()
    raise UsageError(
        f"{execution!r} names no execution; give its ID, a unique prefix or suffix of it, or its run name",
        reason="NO_EXECUTION",
    )
