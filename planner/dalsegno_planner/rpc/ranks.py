"""The lane and the priority that a request asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dalsegno.errors import UsageError
from dalsegno.v1 import execution_pb2
from dalsegno_planner.core.lanes import HIGHEST_PRIORITY, Lane, rank, usual_lane

LANES: Mapping[int, Lane | None] = {
    execution_pb2.LANE_UNSPECIFIED: None,
    execution_pb2.LANE_LIVE: Lane.LIVE,
    execution_pb2.LANE_BULK: Lane.BULK,
}
LANE_MESSAGES = {Lane.LIVE: execution_pb2.LANE_LIVE, Lane.BULK: execution_pb2.LANE_BULK}


class Ranked(Protocol):
    """What creates an execution."""

    lane: execution_pb2.Lane.ValueType
    priority: int


def rank_of(request: Ranked, *, steps: int = 0) -> int:
    """Return the rank that a request asks for, of whose execution at least so many steps run.

    Raises:
        UsageError: There is no such priority.
    """
    check_priority(request)
    asked = LANES.get(request.lane)
    return rank(usual_lane(steps) if asked is None else asked, request.priority)


def check_priority(request: Ranked) -> None:
    """Refuse a priority that there is not.

    Raises:
        UsageError: It is one.
    """
    if abs(request.priority) > HIGHEST_PRIORITY:
        raise UsageError(
            f"the priority is {request.priority}; expected a number from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}",
            reason="INVALID_PRIORITY",
            fields={"priority": str(request.priority)},
        )
