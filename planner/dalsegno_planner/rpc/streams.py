"""Graphs that arrive as streams: small ones are gathered first, large ones are stored as they come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence

import asyncpg

from dalsegno.errors import Problem, UsageError
from dalsegno_planner.core.execution import Execution, NewExecution
from dalsegno_planner.core.lanes import BULK_FROM
from dalsegno_planner.store import invocations
from dalsegno_planner.store.encoding import encoded
from dalsegno_planner.store.invocations import (
    AttemptRow,
    CompletedRow,
    EncodedGraph,
    GraphRows,
    InvocationRow,
    MarkRow,
    TaskRow,
)
from dalsegno_planner.store.pool import Connection

_TAKEN_ID = re.compile(r"=\([^,]+, (?P<id>.*)\) already exists", re.DOTALL)
_PART_BYTES = 1 << 20


class AlreadyCreated(Exception):
    """Rolls back a transaction in which the request turns out to have been made before."""

    def __init__(self, execution: Execution) -> None:
        super().__init__(str(execution.id))
        self.execution = execution


async def gather(batches: AsyncIterator[GraphRows]) -> GraphRows:
    """Return the graph, or its first some thousand steps, so that no transaction waits for a client that has little."""
    nodes: list[InvocationRow | CompletedRow] = []
    tasks: list[TaskRow] = []
    marks: list[MarkRow] = []
    attempts: list[AttemptRow] = []
    async for batch in batches:
        nodes.extend(batch.invocations)
        tasks.extend(batch.tasks)
        marks.extend(batch.marks)
        attempts.extend(batch.attempts)
        if len(nodes) >= BULK_FROM:
            break
    return GraphRows(nodes, tasks, marks, attempts)


async def insert_graph(connection: Connection, first: GraphRows, rest: AsyncIterator[GraphRows], rank: int = 0) -> None:
    """Store a graph, each part while the next one is read. Must run in a transaction.

    Raises:
        UsageError: An invocation ID is used twice.
    """
    under_way = asyncio.create_task(_insert(connection, [encoded(first)], rank))
    try:
        async for parts in _in_large_parts(rest):
            await under_way
            under_way = asyncio.create_task(_insert(connection, parts, rank))
        await under_way
    finally:
        # The connection is not free for the rollback before this has ended.
        under_way.cancel()
        await asyncio.wait([under_way])


async def _in_large_parts(batches: AsyncIterator[GraphRows]) -> AsyncIterator[list[EncodedGraph]]:
    """Gather what comes, so that Postgres does not wait after every small message for what is next."""
    parts: list[EncodedGraph] = []
    async for batch in batches:
        parts.append(encoded(batch))
        if sum(len(part.invocations) for part in parts) >= _PART_BYTES:
            yield parts
            parts = []
    if parts:
        yield parts


def refuse_repeated(new: NewExecution, created: Execution) -> None:
    """End the transaction if the execution was created before by the same request.

    Raises:
        AlreadyCreated: With that execution.
    """
    if created.id != new.id:
        raise AlreadyCreated(created)


async def _insert(connection: Connection, parts: Sequence[EncodedGraph], rank: int) -> None:
    try:
        await invocations.insert_graph(connection, parts, rank)
    except asyncpg.UniqueViolationError as error:
        raise _used_twice(error, [row for part in parts for row in part.rows.invocations]) from None


def _used_twice(error: asyncpg.UniqueViolationError, rows: Iterable[InvocationRow | CompletedRow]) -> UsageError:
    found = _TAKEN_ID.search(error.detail or "")
    invocation_id = found["id"] if found else ""
    number = max((row.number for row in rows if row.invocation_id == invocation_id), default=0)
    problem = Problem(
        f"steps[{number}].invocation_id", f"{invocation_id!r} is the invocation ID of an earlier step already"
    )
    return UsageError("the graph is wrong; nothing was stored", reason="INVALID_GRAPH", problems=[problem])
