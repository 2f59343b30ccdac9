"""What happened to executions, in the order of commits."""

from __future__ import annotations

from uuid import UUID

from dalsegno_planner.core.execution import Event
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("events")


async def after(connection: Connection, execution_id: UUID, event: int, limit: int) -> list[Event]:
    """Return the events after this one."""
    return [Event(**dict(row)) for row in await connection.fetch(SQL["after"], execution_id, event, limit)]
