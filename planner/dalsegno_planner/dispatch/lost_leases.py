"""Tasks that executors hold and that are not theirs any more: their executions have ended, or others have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from dalsegno_planner.dispatch.composites import TaskToken
from dalsegno_planner.dispatch.sessions import Session, Token
from dalsegno_planner.store.sql import load

_QUERIES = load("dispatch")


async def stop_lost(
    connection: Any, sessions: Iterable[Session], reason: str, execution_id: UUID | None = None
) -> None:
    """Have executors stop what they hold and have lost.

    The database is asked, since news may be late: what a retry has begun meanwhile is not what has ended.

    Args:
        connection: The database.
        sessions: The executors.
        reason: Why, for them.
        execution_id: Only what belongs to this execution.
    """
    for session in list(sessions):
        held = [
            TaskToken(*key, task.epoch, session.id)
            for key, task in session.held.items()
            if execution_id is None or key[0] == execution_id
        ]
        if held:
            lost = await connection.fetch(_QUERIES["lost_by_session"], held)
            session.stop([Token(*row) for row in lost], reason)
