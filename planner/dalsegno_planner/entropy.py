"""New IDs, from the clock and the system's randomness."""

from __future__ import annotations

import secrets
import time
from uuid import UUID

from dalsegno_planner.core import ids


def new_execution_id() -> ids.ExecutionId:
    """Return a new execution ID."""
    return ids.execution_id(_milliseconds(), secrets.randbits(74))


def new_uuid7() -> UUID:
    """Return a new UUIDv7."""
    return ids.uuid7(_milliseconds(), secrets.randbits(74))


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
