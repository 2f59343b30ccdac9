"""IDs as users give and get them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dalsegno.errors import UsageError

# The last 40 bits of an ID have the number of the call and the index of the output folded in, as the planner
# does it.
_SPREAD = 0x9E3779B97B
_LOW_MASK = (1 << 40) - 1


def output_id(call_id: UUID, number: int, index: int) -> UUID:
    """Return the ID of an output of a call."""
    return UUID(int=call_id.int ^ _folded(number, 0) ^ _folded(number, index + 1))


def call_in_execution(execution_id: UUID, number: int) -> UUID:
    """Return the ID that a call has in an execution, whoever supplied its outputs."""
    return UUID(int=execution_id.int ^ _folded(number, 0))


def _folded(number: int, slot: int) -> int:
    return (number << 8 | slot) * _SPREAD & _LOW_MASK


def execution_text(execution: object) -> str:
    """Return how a request names an execution: by what the user gave, an object that has an ``exec_id``
    included.

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
