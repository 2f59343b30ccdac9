"""Rows of executions: created, read, listed, cancelled."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from asyncpg import Record

from dalsegno.errors import BackendError, NotFoundError, UsageError
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_RUNTIME, Failure
from dalsegno_planner.core import run_names
from dalsegno_planner.core.execution import (
    Execution,
    ExecutionKind,
    ExecutionState,
    NewExecution,
    Outcome,
)
from dalsegno_planner.core.ids import BODY, ExecutionId, Number
from dalsegno_planner.core.transitions import Operation, Refusal, transition
from dalsegno_planner.store.legality import check_transition
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("executions")

EXECUTION_TIMEOUT = "EXECUTION_TIMEOUT"
"""The reason of the failure of an execution whose deadline has passed."""

_NAME_TRIES = 20
_NAMED = 5
_columns_of = itemgetter(*(field.name for field in fields(Execution)))


@dataclass(frozen=True, slots=True)
class UnservedRoute:
    """Where ready work is to go, though no connected executor is there.

    Attributes:
        route: The code, pinned to a digest or not.
        has_other_code: Whether a connected executor has other code of that name.
    """

    route: str
    has_other_code: bool


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Which executions are listed; an empty field lets all pass."""

    project: str = ""
    flow: str = ""
    states: Sequence[ExecutionState] = ()
    source_id: ExecutionId | None = None


class Known(NamedTuple):
    """What is known of an execution by who looks whether it has changed."""

    id: ExecutionId
    state: ExecutionState | None = None
    """None where nothing is known."""
    number: Number = BODY
    """The invocation whose outputs are wanted once it has completed, if any is."""


class Seen(NamedTuple):
    """An execution as it was found."""

    execution: Execution
    outputs: bytes | None = None
    """What the consumers of the wanted invocation receive, as serialized Outputs, if that has been read."""


async def get(connection: Connection, execution_id: UUID) -> Execution | None:
    """Return an execution by its ID."""
    return _execution(await connection.fetchrow(SQL["get"], execution_id))


async def get_by_name(connection: Connection, name: str, project: str) -> Execution | None:
    """Return an execution by its run name in a project."""
    return _execution(await connection.fetchrow(SQL["get_by_name"], project, name))


async def get_by_request(connection: Connection, request_id: UUID) -> Execution | None:
    """Return the execution that this request created."""
    return _execution(await connection.fetchrow(SQL["get_by_request"], request_id))


async def list_page(connection: Connection, only: ExecutionFilter, before: UUID | None, limit: int) -> list[Execution]:
    """Return executions, the newest first, without their inputs and results."""
    states = [state.value for state in only.states]
    rows = await connection.fetch(SQL["list"], only.project, only.flow, states, only.source_id, before, limit)
    return [of_row(row) for row in rows]


async def changed(connection: Connection, known: Iterable[Known]) -> dict[ExecutionId, Seen | None]:
    """Return, of executions that were in these states, those that are in another one; None for what is deleted."""
    ids, states, numbers = zip(*known, strict=True)
    rows = await connection.fetch(SQL["changed"], ids, states, numbers)
    return {row["asked"]: None if row["id"] is None else Seen(of_row(row), row["taken"]) for row in rows}


async def not_made(connection: Connection, execution_id: UUID) -> tuple[Sequence[str], int]:
    """Return the first recorded calls that the body of a replay did not make, and how many there are."""
    rows = await connection.fetch(SQL["not_made"], execution_id, _NAMED)
    return [row["invocation_id"] for row in rows], rows[0]["count"] if rows else 0


async def unserved_routes(connection: Connection, ids: Iterable[UUID]) -> Mapping[UUID, UnservedRoute]:
    """Return, for each execution with ready work that no connected executor can take, the route of such work."""
    rows = await connection.fetch(SQL["unserved"], list(ids))
    return {row["execution_id"]: UnservedRoute(row["route"], row["has_other_code"]) for row in rows}


async def start_flow(connection: Connection, new: NewExecution) -> Execution:
    """Create a flow's execution with its body's task; the one that exists where the request was made before.

    Raises:
        UsageError: The name is taken.
    """

    async def insert(named: NewExecution) -> Execution | None:
        row = await connection.fetchrow(SQL["start_flow"], *_columns(named), named.route, named.time_limit, named.rank)
        return _pending(named, row) if row is not None else None

    return await _create(connection, new, insert)


async def start_pipeline(connection: Connection, new: NewExecution, step_count: int) -> Execution:
    """Create the row of a pipeline's execution whose graph is stored; one without steps has completed at once.

    Raises:
        UsageError: The name is taken.
    """

    async def insert(named: NewExecution) -> Execution | None:
        more = (step_count, named.time_limit, named.rank)
        created_at = await connection.fetchval(SQL["start_pipeline"], *_columns(named), *more)
        return await get(connection, named.id) if created_at is not None else None

    return await _create(connection, new, insert)


async def record_finished(
    connection: Connection, new: NewExecution, outcome: Outcome, step_count: int, failures: int
) -> Execution:
    """Create the row of an imported execution whose graph is stored.

    Raises:
        UsageError: The name is taken.
    """
    how = (outcome.state.value, step_count, failures, outcome.result, outcome.failure)
    when = (outcome.started_at, outcome.finished_at)

    async def insert(named: NewExecution) -> Execution | None:
        created_at = await connection.fetchval(SQL["record_finished"], *_columns(named), *how, *when)
        return await get(connection, named.id) if created_at is not None else None

    return await _create(connection, new, insert)


async def record_provenance(
    connection: Connection, execution_id: UUID, source_id: UUID, requested_by: str, single_step: bool, inputs: list[str]
) -> Execution:
    """Note what an imported execution replayed elsewhere, and return it."""
    about = {"inputs": inputs}
    await connection.execute(SQL["record_provenance"], execution_id, source_id, requested_by, single_step, about)
    found = await get(connection, execution_id)
    assert found is not None
    return found


async def check_name(connection: Connection, new: NewExecution) -> None:
    """Refuse a taken run name before much is done. The row's creation decides; a repeated request passes.

    Raises:
        UsageError: The name is taken.
    """
    if new.name and await connection.fetchval(SQL["name_taken"], new.project, new.name, new.request_id):
        raise name_taken(new.name, new.project)


async def cancel(connection: Connection, execution_id: UUID, failure: bytes) -> bool:
    """End an execution and what it holds. Must run in a transaction.

    Returns:
        Whether it was this call that cancelled it.

    Raises:
        NotFoundError: It has been deleted.
        StateError: It has ended otherwise.
    """
    tasks, state = await _stop(connection, execution_id)
    ended = check_transition(Operation.CANCEL, execution_id, state)
    if ended is state:
        return False
    await _end(connection, execution_id, ended, failure, tasks)
    return True


async def time_out(connection: Connection) -> list[UUID]:
    """End the executions whose deadline has passed by the database's clock, and what they hold.

    Returns:
        Those that it has ended.
    """
    ended = []
    for due in await connection.fetch(SQL["due"]):
        async with connection.transaction():
            if await _time_out(connection, due["id"]):
                ended.append(due["id"])
    return ended


async def one_at_a_time(connection: Connection, execution_id: UUID) -> None:
    """Wait for whoever ends or retries an execution, before anything of it is locked: each would wait for the other."""
    await connection.execute(SQL["one_at_a_time"], execution_id)


async def _stop(connection: Connection, execution_id: UUID) -> tuple[Sequence[Record], ExecutionState]:
    """Delete the tasks of an execution, and lock it; return the tasks and its state.

    Tasks first, as the commits of executors do: a report that is being written ends before this goes on.
    """
    await one_at_a_time(connection, execution_id)
    tasks = await connection.fetch(SQL["delete_tasks"], execution_id)
    state = await connection.fetchval(SQL["lock_state"], execution_id)
    if state is None:
        raise is_gone(execution_id)
    return tasks, ExecutionState(state)


def is_gone(execution_id: UUID) -> NotFoundError:
    """Return the refusal of what is asked of an execution that has been deleted meanwhile."""
    return NotFoundError(
        f"execution {execution_id} is not there any more",
        reason="EXECUTION_NOT_FOUND",
        fields={"execution": str(execution_id)},
    )


async def _time_out(connection: Connection, execution_id: UUID) -> bool:
    try:
        tasks, state = await _stop(connection, execution_id)
    except NotFoundError:
        return False
    outcome = transition(Operation.TIME_OUT, state)
    execution = await get(connection, execution_id)
    if isinstance(outcome, Refusal) or execution is None:
        return False
    failure = Failure(
        origin=FAILURE_ORIGIN_RUNTIME,
        message=f"{execution.kind} {execution.flow!r} exceeded its timeout of {execution.time_limit:g} s",
        exception_type="dalsegno.errors:ExecutionError",
        reason=EXECUTION_TIMEOUT,
    )
    await _end(connection, execution_id, outcome, failure.SerializeToString(), tasks)
    return True


async def _end(
    connection: Connection, execution_id: UUID, state: ExecutionState, failure: bytes, deleted: Sequence[Record]
) -> None:
    """End an execution whose row is locked, with all that it has under way; `deleted` are tasks that it had."""
    tasks = [*deleted]
    # Until there are none: more may have been made ready while the last deletion waited for whoever did so.
    while more := await connection.fetch(SQL["delete_tasks"], execution_id):
        tasks += more
    given_out = [task["number"] for task in tasks if task["given_out"]]
    numbers, epochs = [task["number"] for task in tasks], [task["epoch"] for task in tasks]
    await connection.execute(SQL["fence_invocations"], execution_id, numbers, epochs)
    changed = await connection.fetch(SQL["cancel_invocations"], execution_id, given_out)
    await connection.execute(SQL["abort_waits"], execution_id)
    await connection.execute(
        SQL["end"],
        execution_id,
        failure,
        [row["number"] for row in changed],
        [row["state"] for row in changed],
        max((task["epoch"] for task in tasks if task["number"] == 0), default=0),
        state.value,
    )


async def _create(
    connection: Connection, new: NewExecution, insert: Callable[[NewExecution], Awaitable[Execution | None]]
) -> Execution:
    for _ in range(_NAME_TRIES):
        named = replace(new, name=new.name or run_names.run_name(secrets.randbits(run_names.BITS)))
        created = await insert(named)
        if created is None and new.request_id is not None:
            created = await get_by_request(connection, new.request_id)
        if created is not None:
            return created
        if new.name:
            raise name_taken(new.name, new.project)
    raise BackendError("no free run name was found; give the run a name of its own", reason="NO_FREE_NAME")


def _pending(new: NewExecution, row: Record) -> Execution:
    return Execution(
        id=new.id,
        project=new.project,
        name=new.name,
        flow=new.flow,
        kind=new.kind,
        state=ExecutionState.PENDING,
        module=new.module,
        pinned_digest=new.pinned_digest,
        source_id=None,
        debug=new.debug,
        single_step=False,
        requested_by="",
        invocation_count=0,
        last_event=1,
        created_at=row["created_at"],
        started_at=None,
        finished_at=None,
        inputs=new.inputs,
        result=None,
        failure=None,
        result_binding=new.result_binding,
        replay=None,
        time_limit=new.time_limit,
        deadline=row["deadline"],
        rank=new.rank,
    )


def _columns(new: NewExecution) -> tuple[Any, ...]:
    return (
        new.id,
        new.project,
        new.name,
        new.flow,
        new.kind.value,
        new.module,
        new.pinned_digest,
        new.code_digest,
        new.debug,
        new.request_id,
        new.inputs,
        new.result_binding,
        new.shaping_inputs,
    )


def _execution(row: Record | None) -> Execution | None:
    return None if row is None else of_row(row)


def of_row(row: Record) -> Execution:
    """Return the execution of a row that has its columns, and may have others."""
    execution_id, project, name, flow, kind, state, *others = _columns_of(row)
    return Execution(execution_id, project, name, flow, ExecutionKind(kind), ExecutionState(state), *others)


def name_taken(name: str, project: str) -> UsageError:
    """Return the refusal of a run name that another execution has."""
    return UsageError(
        f"the run name {name!r} is taken in project {project!r}; choose another, or leave it out to get one",
        reason="NAME_TAKEN",
        fields={"name": name, "project": project},
    )
