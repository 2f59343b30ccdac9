"""Looks into the database of an engine: what replays are made of, and nothing that users are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg

from dalsegno.client.executions import Execution
from tests.unit.plan_oracle import Step

CODE_OF_LONG_AGO = "0" * 64


class Tables:
    """Looks into the engine's database."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def rows(self, sql: str, *values: object) -> list[Mapping[str, Any]]:
        async def fetched() -> list[Mapping[str, Any]]:
            return [dict(row) for row in await self._connection.fetch(sql, *values)]

        return self._runner.run(fetched())

    def counts(self) -> dict[str, int]:
        """Return how many rows every table has."""
        names = [row["tablename"] for row in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return {name: self.rows(f"SELECT count(*) AS rows FROM {name}")[0]["rows"] for name in names}

    def own(self, execution: Execution) -> dict[str, Mapping[str, Any]]:
        """Return an execution's own rows of invocations."""
        found = self.rows("SELECT * FROM invocations WHERE execution_id = $1", execution.exec_id)
        return {row["invocation_id"]: row for row in found}

    def lineage_length(self, execution: Execution) -> int:
        """Return how many executions an execution reads from, itself included."""
        found = self.rows("SELECT count(*) AS rows FROM lineage WHERE execution_id = $1", execution.exec_id)
        return int(found[0]["rows"])

    def check_edges(self, execution: Execution) -> None:
        """An execution's own edges are those of its own rows; a call that was not made may have kept some."""
        wrong = self.rows(
            """
            WITH own AS (
                SELECT u.number AS upstream, i.number AS downstream, i.state = 'not_reached' AS hidden
                FROM invocations AS i CROSS JOIN LATERAL unnest(i.upstream) AS u (number) WHERE i.execution_id = $1
            )
            SELECT * FROM own FULL JOIN (SELECT * FROM edges WHERE execution_id = $1) AS e USING (upstream, downstream)
            WHERE e.execution_id IS NULL AND NOT own.hidden OR own.hidden IS NULL
            """,
            execution.exec_id,
        )
        assert not wrong

    def age(self, execution: Execution, calls: Iterable[str]) -> None:
        """Let calls that an execution shows have run with code of long ago."""
        self.rows(
            """
            UPDATE invocations AS i SET code_digest = $3
            FROM effective_invocations($1) AS shown
            WHERE shown.invocation_id = ANY ($2) AND (i.execution_id, i.number) = (shown.execution_id, shown.number)
            RETURNING 1
            """,
            execution.exec_id,
            list(calls),
            CODE_OF_LONG_AGO,
        )

    def recorded_steps(self, execution: Execution) -> list[Step]:
        """Return the graph that an execution shows, for the oracle of plans."""
        rows = self.rows(
            """
            SELECT i.*, i.outputs IS NOT NULL AS has_outputs
            FROM effective_invocations($1) AS i
            WHERE i.kind = 'step' AND (i.called OR i.state <> 'not_reached') ORDER BY i.number
            """,
            execution.exec_id,
        )
        ids = {row["number"]: row["invocation_id"] for row in rows}
        return [
            Step(
                row["invocation_id"],
                row["name"],
                frozenset(ids[one] for one in {*row["upstream"]} - {*row["after"]} if one in ids),
                frozenset(ids[one] for one in row["after"] if one in ids),
                succeeded=row["state"] == "completed" or (row["state"] == "reused" and row["has_outputs"]),
                changed=row["code_digest"] in (CODE_OF_LONG_AGO, ""),
                reads=frozenset(row["reads_inputs"]),
                overridden=row["override_outputs"] is not None,
            )
            for row in rows
        ]

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()
