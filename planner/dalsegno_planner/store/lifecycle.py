"""What users do to executions that are there: retried in place, resumed. The rest is in `executions` and `waits`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asyncpg import Record

from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_DIVERGENCE, Failure
from dalsegno_planner.core.execution import ExecutionKind, ExecutionState
from dalsegno_planner.core.transitions import Operation
from dalsegno_planner.store.executions import EXECUTION_TIMEOUT, is_gone, one_at_a_time
from dalsegno_planner.store.legality import check_transition, refused
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("lifecycle")


@dataclass(frozen=True, slots=True)
class Pin:
    """Code of which exactly one version may run."""

    module: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Retry:
    """How an execution is retried.

    Attributes:
        request_id: Makes it idempotent.
        pinned_digest: The version of the flow or pipeline that may run it; empty for any.
        steps: The versions of a pipeline's steps; any version of those that are not named.
    """

    request_id: UUID | None = None
    pinned_digest: str = ""
    steps: Sequence[Pin] = ()


async def retry(connection: Connection, execution_id: UUID, how: Retry) -> bool:
    """Re-run, in place, what ended an execution and what never ran. Must run in a transaction.

    Returns:
        Whether it was this call that retried it; not where the same request has done so before.

    Raises:
        NotFoundError: It has been deleted.
        StateError: It has not ended, or has nothing to run again.
    """
    await one_at_a_time(connection, execution_id)
    row = await _lock(connection, execution_id)
    if how.request_id is not None and row["retry_request_id"] == how.request_id:
        return False
    state = ExecutionState(row["state"])
    check_transition(Operation.RETRY, execution_id, state)
    if row["debug"]:
        text = "was debugged in a process that has left it, so that nothing can retry it; replay it"
        raise refused(execution_id, state, "DEBUG_EXECUTION", text)
    is_flow = ExecutionKind(row["kind"]) is ExecutionKind.FLOW
    if row["has_readers"]:
        await connection.execute(SQL["keep_for_readers"], execution_id, is_flow and row["has_ancestors"])
        await connection.execute(SQL["keep_yields_for_readers"], execution_id)
    await connection.execute(SQL["forget_promotions"], execution_id)
    if is_flow:
        again = await _reset_flow(connection, execution_id, row)
    else:
        again = await _reset_pipeline(connection, execution_id, how.steps)
        if not again:
            raise refused(execution_id, state, "NOTHING_TO_RETRY", "has no step that failed or never ran; replay it")
    await connection.execute(SQL["restart"], execution_id, again, how.pinned_digest, how.request_id)
    await connection.execute(SQL["insert_body" if is_flow else "insert_tasks"], execution_id)
    return True


async def resume(connection: Connection, execution_id: UUID) -> bool:
    """Put a flow back to work whose waits have all been answered. Must run in a transaction.

    Returns:
        Whether there was anything to do: as a rule it goes on by itself.

    Raises:
        NotFoundError: It has been deleted.
        StateError: It has ended, or a wait of it is pending.
    """
    row = await _lock(connection, execution_id)
    state = ExecutionState(row["state"])
    check_transition(Operation.RESUME, execution_id, state)
    if ExecutionKind(row["kind"]) is not ExecutionKind.FLOW:
        return False
    asked = [found["invocation_id"] for found in await connection.fetch(SQL["open_questions"], execution_id)]
    if asked and state is ExecutionState.WAITING:
        text = f"waits for {', '.join(asked)}; answer that, and it goes on by itself"
        raise refused(execution_id, state, "WAIT_PENDING", text)
    if asked:
        return False
    await connection.execute(SQL["resume"], execution_id)
    return await connection.fetchval(SQL["insert_body"], execution_id) is not None


async def _lock(connection: Connection, execution_id: UUID) -> Record:
    row = await connection.fetchrow(SQL["lock"], execution_id)
    if row is None:
        raise is_gone(execution_id)
    return row


async def _reset_pipeline(connection: Connection, execution_id: UUID, pins: Sequence[Pin]) -> list[int]:
    columns = [pin.module for pin in pins], [pin.name for pin in pins], [pin.digest for pin in pins]
    again = await connection.fetch(SQL["reset_pipeline"], execution_id, *columns)
    await connection.execute(SQL["block"], execution_id)
    return _numbers(again)


async def _reset_flow(connection: Connection, execution_id: UUID, row: Record) -> list[int]:
    failure = Failure.FromString(row["failure"] or b"")
    # A body that has diverged, or ran out of time, was stopped: which failures it would have caught is not known.
    stopped = failure.origin == FAILURE_ORIGIN_DIVERGENCE or failure.reason == EXECUTION_TIMEOUT
    by_itself = row["state"] == ExecutionState.FAILED and not stopped
    failed = await connection.fetch(SQL["failures_to_repeat"], execution_id, failure.invocation_id, by_itself)
    await connection.execute(SQL["forget_tombstones"], execution_id, list(row["roots"]))
    await connection.execute(SQL["reuse_again"], execution_id)
    again = await connection.fetch(SQL["reset_flow"], execution_id, _numbers(failed))
    await connection.execute(SQL["forget_waits"], execution_id)
    return _numbers(again)


def _numbers(rows: Sequence[Any]) -> list[int]:
    return sorted(row["number"] for row in rows)
