"""Recorded calls that the body of a replay did not make, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalsegno.v1 import execution_pb2


def not_made_text(message: execution_pb2.Execution) -> str:
    """Return which recorded calls a replay did not make; empty where it made them all."""
    count, named = message.not_made_count, list(message.not_made)
    if not count:
        return ""
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    return f"{count:,} recorded {'call was' if count == 1 else 'calls were'} not made: {', '.join(named)}{more}"
