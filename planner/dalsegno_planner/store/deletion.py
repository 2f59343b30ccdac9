"""Deletes executions, and nothing that a replay still reads from."""

from __future__ import annotations

from uuid import UUID

from dalsegno.errors import StateError
from dalsegno_planner.core.execution import ExecutionState
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.released_objects import release_header, release_rows
from dalsegno_planner.store.sql import load

_QUERIES = load("deletion")
_NAMED = 5
TABLES = ("logs", "events", "attempts", "waits", "edges", "yields", "tasks", "artifacts", "invocations")
"""What has rows of executions, besides `executions` and `lineage`; the queries that clear them have their names."""


async def delete(connection: Connection, execution_id: UUID) -> None:
    """Delete an execution with everything recorded of it. Must run in a transaction.

    Its objects in the object store are removed later, where nothing else has them.

    Raises:
        StateError: It has not ended, or replays still read from it.
    """
    # The lock is the one that the creation of a replay takes: a replay is either seen here, or finds its source gone.
    state = await connection.fetchval(_QUERIES["lock"], execution_id)
    if state is None:
        return
    if not ExecutionState(state).finished:
        raise StateError(
            f"execution {execution_id} is {state}; cancel it before it is deleted",
            reason="EXECUTION_NOT_FINISHED",
            fields={"execution": str(execution_id), "state": state},
        )
    readers = await connection.fetch(_QUERIES["readers"], execution_id, _NAMED + 1)
    if readers:
        named = ", ".join(row["name"] for row in readers[:_NAMED]) + (" and more" if len(readers) > _NAMED else "")
        raise StateError(
            f"execution {execution_id} is still read from by the replays {named}; delete them first",
            reason="EXECUTION_IN_USE",
            fields={"execution": str(execution_id)},
        )
    await release_header(connection, execution_id)
    for table in TABLES:
        await release_rows(connection, table, execution_id)
        await connection.execute(_QUERIES[table], execution_id)
    for query in ("lineage", "execution"):
        await connection.execute(_QUERIES[query], execution_id)
