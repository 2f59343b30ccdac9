"""Invocations and edges: written in bulk, read through lineages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from asyncpg import Record

from dalsegno_planner.core.execution import Attempt, ExecutionKind, Invocation, InvocationKind, InvocationState
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.store import copying
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("invocations")

MOST_ATTEMPTS = 1_000

_EDGE_COLUMNS = ("execution_id", "upstream", "downstream")


class InvocationRow(NamedTuple):
    """A new row, its fields in the order of the COPY; a tuple because there may be millions."""

    execution_id: ExecutionId
    number: int
    position: int
    invocation_id: str
    name: str
    kind: str
    state: str
    module: str
    pinned_digest: str
    code_digest: str
    attempt: int
    blocked_by: int
    started_at: datetime | None
    finished_at: datetime | None
    upstream: list[int]
    after: list[int]
    reads_inputs: Sequence[str]
    inputs: bytes
    outputs: bytes | None
    failure: bytes | None
    options: bytes
    original_call_id: UUID | None = None


class StepCode(NamedTuple):
    """What a step calls."""

    module: str
    name: str
    pinned_digest: str


class CompletedRow(NamedTuple):
    """A new row of a step that has completed elsewhere at its first attempt: what most rows of an import are."""

    execution_id: ExecutionId
    number: int
    invocation_id: str
    code: StepCode
    code_digest: str
    started_at: datetime | None
    finished_at: datetime | None
    upstream: list[int]
    reads_inputs: Sequence[str]
    inputs: bytes
    outputs: bytes | None


class TaskRow(NamedTuple):
    """A new task of a step."""

    execution_id: ExecutionId
    number: int
    is_body: bool
    route: str
    limited_by: str = ""
    at_most: int = 0


class MarkRow(NamedTuple):
    """What a recorded invocation has that most have not. Its outputs are an override where it says so."""

    execution_id: ExecutionId
    number: int
    attempt: int
    stale_inputs: bool
    overridden_inputs: list[str]
    output_overridden: bool
    returned: bytes | None


class AttemptRow(NamedTuple):
    """A recorded attempt that failed."""

    execution_id: ExecutionId
    number: int
    attempt: int
    executor: str
    started_at: datetime | None
    finished_at: datetime | None
    failure: bytes | None


@dataclass(frozen=True, slots=True)
class GraphRows:
    """A part of a graph, ready to be stored. Its edges are those that the invocations tell."""

    invocations: Sequence[InvocationRow | CompletedRow]
    tasks: Sequence[TaskRow] = ()
    marks: Sequence[MarkRow] = ()
    attempts: Sequence[AttemptRow] = ()


@dataclass(frozen=True, slots=True)
class EncodedGraph:
    """A part of a graph with its invocations and edges as they are copied."""

    rows: GraphRows
    invocations: bytes
    edges: bytes


async def insert_graph(connection: Connection, parts: Sequence[EncodedGraph], rank: int = 0) -> None:
    """Store parts of a graph, with tasks of a rank. Must run in a transaction.

    Raises:
        asyncpg.UniqueViolationError: An invocation ID is used twice.
    """
    for table, columns, contents in (
        ("invocations", InvocationRow._fields, [part.invocations for part in parts if part.invocations]),
        ("edges", _EDGE_COLUMNS, [part.edges for part in parts if part.edges]),
    ):
        if contents:
            source = copying.document(contents)
            await connection.copy_to_table(table, source=source, columns=columns, format="binary")
    tasks = [(*task, rank) for part in parts for task in part.rows.tasks]
    if tasks:
        await connection.copy_records_to_table("tasks", records=tasks, columns=(*TaskRow._fields, "lane"))
    attempts = [row for part in parts for row in part.rows.attempts]
    if attempts:
        await connection.copy_records_to_table("attempts", records=attempts, columns=AttemptRow._fields)
    marks = [row for part in parts for row in part.rows.marks]
    if marks:
        await connection.executemany(SQL["mark"], marks)


async def list_page(
    connection: Connection,
    execution_id: ExecutionId,
    kind: ExecutionKind,
    after: int,
    limit: int,
    *,
    own_only: bool = False,
) -> tuple[list[Invocation], int | None]:
    """Return invocations by their number, reused ones included unless only the execution's own are wanted.

    Returns:
        The page, and the number after which the next one starts; None where this is the last.
    """
    rows = await connection.fetch(SQL["page"], execution_id, after, limit, own_only)
    following = rows[-1]["number"] if len(rows) == limit else None
    return [_from_row(execution_id, kind, row) for row in rows if _belongs(row)], following


async def get_some(
    connection: Connection,
    execution_id: ExecutionId,
    kind: ExecutionKind,
    numbers: Iterable[int],
    *,
    own_only: bool = False,
) -> list[Invocation]:
    """Return the invocations with these numbers, by number; those that are not there are left out."""
    rows = await connection.fetch(SQL["some"], execution_id, list(numbers), own_only)
    return [_from_row(execution_id, kind, row) for row in rows if _belongs(row)]


async def page_of(
    connection: Connection,
    execution_id: ExecutionId,
    kind: ExecutionKind,
    numbers: Sequence[int],
    after: int,
    limit: int,
    *,
    own_only: bool = False,
) -> tuple[list[Invocation], int | None]:
    """Return a page of the invocations with these numbers, as `list_page` does of all."""
    wanted = [number for number in numbers if number > after]
    page = await get_some(connection, execution_id, kind, wanted[:limit], own_only=own_only)
    return page, wanted[limit - 1] if len(wanted) > limit else None


async def outputs(connection: Connection, execution_id: UUID, numbers: Iterable[int]) -> dict[int, bytes | None]:
    """Return what the consumers of these invocations receive, as serialized Outputs."""
    rows = await connection.fetch(SQL["outputs"], execution_id, list(numbers))
    return {row["number"]: row["outputs"] for row in rows}


async def list_attempts(connection: Connection, execution_id: UUID, number: int) -> list[Attempt]:
    """Return the failed attempts of an invocation, or of all where the number is 0, in the order of their end."""
    rows = await connection.fetch(SQL["attempts"], execution_id, number, MOST_ATTEMPTS)
    return [Attempt(**dict(row)) for row in rows]


def _belongs(row: Record) -> bool:
    """Whether the execution has it: what an earlier one in the lineage did not reach was not recorded there."""
    # At position 0 there is no call: it only keeps hidden what an earlier one did not reach before it was retried.
    return bool((row["depth"] == 0 or row["state"] != "not_reached") and row["position"] > 0)


def _from_row(execution_id: ExecutionId, kind: ExecutionKind, row: Record) -> Invocation:
    return Invocation(
        execution_id=execution_id,
        supplier_id=row["supplier_id"],
        number=row["number"],
        position=row["position"],
        invocation_id=row["invocation_id"],
        name=row["name"],
        kind=InvocationKind(row["kind"]),
        state=_state(row, kind),
        module=row["module"],
        pinned_digest=row["pinned_digest"],
        code_digest=row["code_digest"],
        attempt=row["attempt"],
        stale_inputs=row["stale_inputs"],
        output_overridden=row["output_overridden"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        after=tuple(row["after"]),
        overridden_inputs=tuple(row["overridden_inputs"]),
        inputs=row["inputs"],
        outputs=row["outputs"],
        failure=row["failure"],
        options=row["options"],
        progress=row["progress"],
        recorded_original_id=row["original_call_id"],
    )


def _state(row: Record, kind: ExecutionKind) -> InvocationState:
    if row["depth"] > 0 or row["original_call_id"] is not None:
        return InvocationState.REUSED
    state = InvocationState(row["state"])
    if state is not InvocationState.PENDING:
        return state
    if not row["has_task"]:
        # A call that has begun without a task runs in the body of the flow, or ran there when its executor was lost.
        direct = kind is ExecutionKind.FLOW and row["started_at"] is not None
        if not direct:
            return InvocationState.PENDING
        return InvocationState.RUNNING if row["body_held"] else InvocationState.READY
    if row["given_out"]:
        return InvocationState.RUNNING if row["running"] else InvocationState.LEASED
    return InvocationState.READY if row["available"] else InvocationState.PENDING
