"""Lanes as messages have them."""

from __future__ import annotations

from dalsegno.lanes import Lane
from dalsegno.v1 import execution_pb2

_MESSAGES = {
    None: execution_pb2.LANE_UNSPECIFIED,
    Lane.LIVE: execution_pb2.LANE_LIVE,
    Lane.BULK: execution_pb2.LANE_BULK,
}
_LANES = {message: lane for lane, message in _MESSAGES.items() if lane is not None}


def lane_message(lane: Lane | None) -> execution_pb2.Lane.ValueType:
    """Return the message for a lane, or for none."""
    return _MESSAGES[lane]


def lane_of(execution: execution_pb2.Execution) -> Lane:
    """Return the lane of an execution."""
    return _LANES.get(execution.lane, Lane.LIVE)
