"""What Postgres has of executions once they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg


@dataclass(frozen=True)
class History:
    """Of some executions.

    Attributes:
        states: State of each execution by its ID.
        invocations: State, and how often its completion was recorded, of each invocation by execution and ID.
        outstanding: Tasks that are still to be done.
        failed_attempts: Attempts that failed.
        uneven: Executions whose events have gaps.
    """

    states: dict[str, str]
    invocations: dict[tuple[str, str], tuple[str, int]]
    outstanding: int
    failed_attempts: int
    uneven: int

    def assert_whole(self, invocations: int) -> None:
        """Every execution completed, and each of its invocations has exactly one result."""
        assert set(self.states.values()) == {"completed"}
        assert len(self.invocations) == invocations
        assert set(self.invocations.values()) == {("completed", 1)}
        assert (self.outstanding, self.failed_attempts, self.uneven) == (0, 0, 0)


def read_history(dsn: str, executions: Sequence[str]) -> History:
    """Read the history of executions."""
    return asyncio.run(_read(dsn, executions))


async def _read(dsn: str, executions: Sequence[str]) -> History:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT id, state FROM executions WHERE id = ANY ($1::uuid[])", executions)
        invocations = await connection.fetch(
            """
            SELECT i.execution_id, i.invocation_id, i.state, i.outputs IS NOT NULL AS has_result,
                   count(*) FILTER (WHERE e.state = 'completed') AS completions
            FROM invocations i LEFT JOIN events e USING (execution_id, number)
            WHERE i.execution_id = ANY ($1::uuid[])
            GROUP BY i.execution_id, i.number
            """,
            executions,
        )
        return History(
            states={str(row["id"]): row["state"] for row in rows},
            invocations={
                (str(row["execution_id"]), row["invocation_id"]): (row["state"], row["completions"])
                for row in invocations
                if row["has_result"]
            },
            outstanding=await _count(connection, "SELECT count(*) FROM tasks", executions),
            failed_attempts=await _count(connection, "SELECT count(*) FROM attempts", executions),
            uneven=await connection.fetchval(
                """
                SELECT count(*) FROM executions x
                WHERE x.id = ANY ($1::uuid[])
                  AND x.last_event <> (SELECT count(*) FROM events e WHERE e.execution_id = x.id)
                """,
                executions,
            ),
        )
    finally:
        await connection.close()


async def _count(connection: asyncpg.Connection[Any], select: str, executions: Sequence[str]) -> int:
    counted = await connection.fetchval(f"{select} WHERE execution_id = ANY ($1::uuid[])", executions)
    assert isinstance(counted, int)
    return counted
