"""Deletes executions that ended long ago, a little at a time.

An execution goes in two steps: first what makes it one, in a moment, then its many rows. Whoever dies in between leaves
them to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from dalsegno_planner.core.ids import uuid7
from dalsegno_planner.store.deletion import TABLES
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.released_objects import release_header, release_rows
from dalsegno_planner.store.sql import load

_QUERIES = load("retention")
_HIGHEST_BITS = (1 << 74) - 1
FIRST = UUID(int=0)
"""Comes before all executions."""


async def before(connection: Connection, kept: timedelta) -> datetime:
    """Return when what is deleted now has ended at the latest, by the clock by which executions end."""
    ended: datetime = await connection.fetchval(_QUERIES["before"], kept)
    return ended


async def expired(connection: Connection, before: datetime, after: UUID, limit: int) -> Sequence[UUID]:
    """Return executions that ended before a time and that nothing reads from, by their ID, after the given one."""
    last = uuid7(int(before.timestamp() * 1000), _HIGHEST_BITS)
    rows = await connection.fetch(_QUERIES["expired"], after, last, before, limit)
    return [row["id"] for row in rows]


async def forget(connection: Connection, execution_id: UUID, before: datetime) -> bool:
    """Delete an execution, unless it goes on or is read from by now. Must run in a transaction.

    Its rows are left to `sweep`.

    Returns:
        Whether it is deleted.
    """
    await connection.fetch(_QUERIES["lock"], execution_id)
    await release_header(connection, execution_id)
    return await connection.fetchval(_QUERIES["forget"], execution_id, before) is not None


async def sweep(connection: Connection, limit: int) -> int:
    """Delete up to so many rows of one deleted execution. Must run in a transaction.

    Returns:
        How many were deleted; 0 where no planner need look again.
    """
    execution_id = await connection.fetchval(_QUERIES["next_garbage"])
    if execution_id is None:
        return 0
    for table in TABLES:
        await release_rows(connection, table, execution_id, limit)
        deleted = int((await connection.execute(_QUERIES[table], execution_id, limit)).split()[-1])
        if deleted:
            return deleted
    await connection.execute(_QUERIES["swept"], execution_id)
    return 1
