"""What a replay warns of, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalsegno.v1 import execution_pb2


def replay_warnings(message: execution_pb2.Execution) -> tuple[str, ...]:
    """Return what the plan of a replay warned of, and which recorded calls its body did not make."""
    return (*message.plan_warnings, *filter(None, (_not_made(message),)))


def _not_made(message: execution_pb2.Execution) -> str:
    count, named = message.not_made_count, list(message.not_made)
    if not count:
        return ""
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    return f"{count:,} recorded {'call was' if count == 1 else 'calls were'} not made: {', '.join(named)}{more}"
