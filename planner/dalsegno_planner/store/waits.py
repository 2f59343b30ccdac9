"""Waits: listed, answered, timed out. Ending a wait puts the flow's body back to work."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asyncpg import Record

from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_RUNTIME, Failure
from dalsegno.v1.value_pb2 import Output, Outputs, Payload
from dalsegno_planner.core.execution import ExecutionState, Wait, WaitState
from dalsegno_planner.core.transitions import Operation, Refusal, transition
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("waits")

ANSWER_OUTPUT = "output"
"""The name of the output of a wait."""

_TIMED_OUT = Failure(
    origin=FAILURE_ORIGIN_RUNTIME,
    message="no answer came before the deadline",
    exception_type="dalsegno.errors:WaitTimeoutError",
)


async def list_page(
    connection: Connection, execution_id: UUID, *, after: int, pending_only: bool, limit: int
) -> tuple[list[Wait], int | None]:
    """Return the waits of an execution in the order in which they were asked.

    Returns:
        The page, and the position after which the next one starts; None where this is the last.
    """
    rows = await connection.fetch(SQL["list"], execution_id, after, pending_only, limit)
    following = rows[-1]["position"] if len(rows) == limit else None
    return [_from_row(row) for row in rows], following


async def lock_execution(connection: Connection, execution_id: UUID) -> ExecutionState:
    """Keep an execution from ending, and return its state. Must run in a transaction."""
    return ExecutionState(await connection.fetchval(SQL["lock_execution"], execution_id))


async def answer(
    connection: Connection,
    execution_id: UUID,
    number: int,
    payload: Payload,
    answered_by: str,
    *,
    was_running: bool,
) -> bool:
    """Store the answer to a pending wait and let the flow go on. The execution must be locked.

    Returns:
        Whether the wait was pending still.
    """
    outputs = Outputs(outputs=[Output(name=ANSWER_OUTPUT, payload=payload)]).SerializeToString()
    stored = (WaitState.ANSWERED.value, payload.SerializeToString(), answered_by, "completed", outputs, None)
    return await _settle(connection, execution_id, number, stored, was_running)


async def expire_waits(connection: Connection) -> list[UUID]:
    """Time out the waits whose deadline has passed by the database's clock, and let their flows go on.

    Returns:
        The executions that changed.
    """
    changed: list[UUID] = []
    stored = (WaitState.TIMED_OUT.value, None, "", "failed", None, _TIMED_OUT.SerializeToString())
    for due in await connection.fetch(SQL["due"]):
        execution_id = due["execution_id"]
        async with connection.transaction():
            state = await lock_execution(connection, execution_id)
            running = state is ExecutionState.RUNNING
            legal = not isinstance(transition(Operation.EXPIRE_WAIT, state), Refusal)
            if legal and await _settle(connection, execution_id, due["number"], stored, running):
                changed.append(execution_id)
    return changed


async def _settle(
    connection: Connection, execution_id: UUID, number: int, stored: tuple[Any, ...], was_running: bool
) -> bool:
    return bool(await connection.fetch(SQL["settle"], execution_id, number, *stored, was_running))


def _from_row(row: Record) -> Wait:
    columns = {name: value for name, value in row.items() if name != "position"}
    return Wait(**{**columns, "state": WaitState(row["state"])})
