"""Times and durations of messages, as Python's and as Postgres'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(message: Any, field: str) -> datetime | None:
    """Return the time in a field of a message, or None where it is not set, or is none."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    try:
        return _EPOCH + timedelta(0, timestamp.seconds, timestamp.nanos // 1000)
    except OverflowError:  # a clock that is out of all range
        return None


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the message for a time."""
    if moment is None:
        return None
    message = Timestamp()
    fill(message, moment)
    return message


def fill(message: Timestamp, moment: datetime) -> None:
    """Put a time into a message."""
    since = moment - _EPOCH  # without the way of FromDatetime through calendars
    message.seconds, message.nanos = since.days * 86_400 + since.seconds, since.microseconds * 1_000


def seconds(message: Duration) -> float:
    """Return the seconds that a message says, which may be more than any duration is."""
    return float(message.seconds + message.nanos / 1e9)


def duration(seconds: float) -> Duration:
    """Return the message for some seconds."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
