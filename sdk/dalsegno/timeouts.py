"""Times that something may take, as users give them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, overload

from dalsegno.errors import UsageError

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration


def checked_timeout(what: str, timeout: object) -> float | None:
    """Return a timeout in seconds; None where there is no limit.

    Args:
        what: How the error names what it is for, such as ``flow 'article'``.
        timeout: Seconds, a timedelta, or None.

    Raises:
        UsageError: If it is no time above zero.
    """
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise UsageError(
            f"{what}: timeout={timeout!r} is no duration; give seconds or a timedelta", reason="INVALID_TIMEOUT"
        )
    return float(seconds)


@overload
def duration(seconds: float) -> Duration: ...
@overload
def duration(seconds: float | None) -> Duration | None: ...
def duration(seconds: float | None) -> Duration | None:
    """Return the message for a time."""
    from google.protobuf.duration_pb2 import Duration

    if seconds is None:
        return None
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds_of(message: Duration) -> float:
    """Return the seconds that a message says."""
    return message.ToNanoseconds() / 1e9
