"""Times of messages as Python's, in UTC."""

from __future__ import annotations

import datetime as dt
from typing import Any


def moment(message: Any, field: str) -> dt.datetime | None:
    """Return the time that a message has in a field; None where it has none."""
    if not message.HasField(field):
        return None
    found: dt.datetime = getattr(message, field).ToDatetime(tzinfo=dt.UTC)
    return found
