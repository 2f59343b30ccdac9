"""Objects that deleted executions had, until it is known whether anything else has them.

Objects are known by their content, so that many executions may have the same one, and one may be written again at any
time. So an object goes only where nothing recorded has it any more, a while after it was released, and where nobody has
written it in that while: whoever writes one says so in the database soon after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("released_objects")
RELEASING = {"invocations": "of_invocations", "artifacts": "of_artifacts"}
"""The tables whose rows may have objects, besides `executions`; the queries that release them."""

Remove: TypeAlias = Callable[[Collection[str], datetime], Awaitable[Collection[str]]]


async def release_header(connection: Connection, execution_id: UUID) -> None:
    """Note the objects that an execution has itself; it is deleted in the same transaction."""
    await connection.execute(SQL["of_execution"], execution_id)


async def release_rows(connection: Connection, table: str, execution_id: UUID, limit: int | None = None) -> None:
    """Note the objects of an execution's first rows, by their key; they are deleted in the same transaction."""
    if table in RELEASING:
        await connection.execute(SQL[RELEASING[table]], execution_id, limit)


async def this_database(connection: Connection) -> UUID:
    """Return what this database is known by among those that share an object store."""
    database: UUID = await connection.fetchval(SQL["this_database"])
    return database


async def settle(connection: Connection, released_for: timedelta, limit: int, remove: Remove) -> tuple[int, int]:
    """Remove objects that nothing has any more, up to `limit`. Must run in a transaction.

    Args:
        connection: Of the transaction.
        released_for: For how long what is looked at has been released.
        limit: How many are looked at.
        remove: Removes objects that were last written before a time, and returns those that it has left.

    Returns:
        How many were looked at, and how many removed.
    """
    keys: Sequence[str] = [row["key"] for row in await connection.fetch(SQL["due"], released_for, limit)]
    if not keys:
        return 0, 0
    in_use = {row["key"] for row in await connection.fetch(SQL["in_use"], keys)}
    unused = [key for key in keys if key not in in_use]
    written_since = await remove(unused, await connection.fetchval(SQL["before"], released_for)) if unused else ()
    await connection.execute(SQL["later"], list(written_since))
    await connection.execute(SQL["settled"], [key for key in keys if key not in written_since])
    return len(keys), len(unused) - len(written_since)
