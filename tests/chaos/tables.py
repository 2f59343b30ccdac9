"""What is left in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import asyncpg

Row = Mapping[str, Any]

_OPEN = "SELECT id, state FROM executions WHERE state IN ('pending', 'running')"
_LEFT = """
    SELECT (SELECT count(*) FROM tasks) AS tasks, (SELECT count(*) FROM sessions) AS sessions,
           (SELECT count(*) FROM session_routes) AS routes
"""
_RESULTS = """
    SELECT i.execution_id::text AS execution, i.number, i.invocation_id, i.name, i.state, i.epoch, i.attempt,
           i.attempts_before, i.inputs,
           i.outputs, e.inputs AS flow_inputs,
           (SELECT count(*) FROM events v WHERE v.execution_id = i.execution_id AND v.number = i.number
                                            AND v.state = 'completed') AS completions,
           u.numbers AS upstream, u.outputs AS upstream_outputs
    FROM invocations i JOIN executions e ON e.id = i.execution_id
    LEFT JOIN LATERAL (
        SELECT array_agg(n.number) AS numbers, array_agg(coalesce(s.override_outputs, s.outputs)) AS outputs
        FROM unnest(i.upstream) n(number) CROSS JOIN LATERAL shown_invocation(i.execution_id, n.number) s
        WHERE n.number <> ALL (i.after)) u ON true
    WHERE i.kind = 'step' AND i.supplier_id IS NULL AND i.state = 'completed'
"""
_UNEVEN = """
    SELECT x.id::text AS execution, x.last_event, count(v.event) AS events
    FROM executions x LEFT JOIN events v ON v.execution_id = x.id
    GROUP BY x.id HAVING x.last_event <> count(v.event)
"""
_IN_LIMBO = """
    SELECT e.id::text AS execution, e.state, i.number, i.invocation_id, i.state AS invocation_state
    FROM executions e JOIN invocations i ON i.execution_id = e.id
    WHERE e.state IN ('completed', 'failed', 'cancelled') AND i.state IN ('pending', 'waiting')
"""
_ASLEEP = """
    SELECT e.id::text AS execution FROM executions e
    WHERE e.state = 'waiting' AND NOT EXISTS (SELECT FROM waits w WHERE w.execution_id = e.id AND w.state = 'pending')
"""
_HISTORY = "SELECT event, number, state, at FROM events WHERE execution_id = $1 ORDER BY event"
_ROWS = """
    SELECT number, invocation_id, state, epoch, attempt, blocked_by, called, supplier_id, started_at, finished_at
    FROM invocations WHERE execution_id = $1 ORDER BY number
"""
_TASKS = "SELECT number, epoch, session_id, running, available_at, losses FROM tasks WHERE execution_id = $1"


class Tables:
    """One connection, past all doors."""

    def __init__(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(dsn))

    def __enter__(self) -> Tables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def under_way(self) -> list[Row]:
        """Executions that have neither ended nor wait."""
        return self._rows(_OPEN)

    def left_over(self) -> Row:
        """How many tasks, sessions and routes there are."""
        return self._rows(_LEFT)[0]

    def results(self) -> list[Row]:
        """Every accepted result, with the inputs that were recorded for it."""
        return self._rows(_RESULTS)

    def uneven(self) -> list[Row]:
        """Executions whose events have gaps."""
        return self._rows(_UNEVEN)

    def in_limbo(self) -> list[Row]:
        """Invocations that have not ended, of executions that have."""
        return self._rows(_IN_LIMBO)

    def asleep(self) -> list[Row]:
        """Executions that wait for nothing."""
        return self._rows(_ASLEEP)

    def executions(self) -> dict[str, str]:
        """The states of all executions."""
        return {str(row["id"]): row["state"] for row in self._rows("SELECT id, state FROM executions")}

    def failed_attempts(self) -> int:
        """How many attempts have failed."""
        return int(self._rows("SELECT count(*) AS failed FROM attempts")[0]["failed"])

    def story(self, execution: str) -> str:
        """Return all that is known of an execution, for people."""
        parts = {"events": _HISTORY, "invocations": _ROWS, "tasks": _TASKS}
        return "\n".join(
            f"    {name}:\n" + "\n".join(f"      {dict(row)}" for row in self._rows(sql, execution))
            for name, sql in parts.items()
        )

    def _rows(self, sql: str, *values: object) -> list[Row]:
        async def fetched() -> list[Row]:
            return [dict(row) for row in await self._connection.fetch(sql, *values)]

        return self._runner.run(fetched())
