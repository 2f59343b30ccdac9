"""Which executions go first: lanes, and priorities within them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dalsegno.errors import UsageError

HIGHEST_PRIORITY = 100


class Lane(StrEnum):
    """Two kinds of executions: for live ones somebody waits, and all their work goes before that of bulk ones."""

    LIVE = "live"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Urgency:
    """What the work of an execution goes before.

    Attributes:
        lane: Its lane; None for live, or bulk where thousands of its steps run.
        priority: Within the lane the higher one goes first.
    """

    lane: Lane | None = None
    priority: int = 0


USUAL = Urgency()


def checked_urgency(what: str, lane: object, priority: object) -> Urgency:
    """Return the lane and the priority that a user gives.

    Args:
        what: How the error names what they are for, such as ``flow 'article'``.
        lane: One, by its name too; None for the usual one.
        priority: A number from -100 to 100; None for 0.

    Raises:
        UsageError: If there is no such lane or priority.
    """
    if lane is not None and lane not in tuple(Lane):
        raise UsageError(
            f"{what}: lane={lane!r} is no lane; there are {' and '.join(repr(one.value) for one in Lane)}",
            reason="INVALID_LANE",
        )
    number = 0 if priority is None else priority
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > HIGHEST_PRIORITY:
        raise UsageError(
            f"{what}: priority={priority!r} is no priority; give a whole number from -{HIGHEST_PRIORITY} to "
            f"{HIGHEST_PRIORITY}, the higher the sooner",
            reason="INVALID_PRIORITY",
        )
    return Urgency(None if lane is None else Lane(str(lane)), number)
