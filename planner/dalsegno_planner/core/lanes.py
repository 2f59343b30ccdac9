"""Which work goes first: lanes, and priorities within them.

An execution and its tasks carry one number for both, their *rank*, in the column `lane`: what has the lower one goes
first. Ranks of live work are around 0, those of bulk work around 201, so that none of the one comes after the other.
"""

from __future__ import annotations

from enum import IntEnum

HIGHEST_PRIORITY = 100
BULK_FROM = 5_000
"""Of how many steps on an execution is bulk work, unless its request says otherwise."""

_BULK_RANK = 2 * HIGHEST_PRIORITY + 1


class Lane(IntEnum):
    """Two kinds of work: for live work somebody waits."""

    LIVE = 0
    BULK = 1

    @property
    def ranks(self) -> tuple[int, int]:
        """The lowest and the highest rank of the lane."""
        middle = _BULK_RANK * self.value
        return middle - HIGHEST_PRIORITY, middle + HIGHEST_PRIORITY


def rank(lane: Lane, priority: int = 0) -> int:
    """Return the rank of what has this lane and this priority, from -100 to 100."""
    return _BULK_RANK * lane.value - priority


def lane_of(rank: int) -> Lane:
    """Return the lane of a rank."""
    return Lane.LIVE if rank <= HIGHEST_PRIORITY else Lane.BULK


def certain_lane(asked: Lane | None, most_steps: int) -> Lane | None:
    """Return the lane of an execution of which at most so many steps run, or None where either is possible."""
    if asked is not None:
        return asked
    return Lane.LIVE if usual_lane(most_steps) is Lane.LIVE else None


def priority_of(rank: int) -> int:
    """Return the priority of a rank within its lane."""
    return _BULK_RANK * lane_of(rank).value - rank


def usual_lane(steps: int) -> Lane:
    """Return the lane of an execution whose request names none, by how many of its steps are known to run."""
    return Lane.BULK if steps >= BULK_FROM else Lane.LIVE
