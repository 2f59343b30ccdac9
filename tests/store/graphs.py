"""Recorded executions, written directly, and what a replay of them wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.value_pb2 import Binding, FlowInputs, Inputs, Output, OutputRef, Outputs, Payload
from dalsegno.values import encode
from dalsegno_planner.core.execution import UNLIMITED, Execution
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.core.plan import PlanEntry
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.store import executions
from dalsegno_planner.store.pool import prepare_connection
from dalsegno_planner.store.replay_entries import View, entries
from dalsegno_planner.store.replay_marks import FEW
from dalsegno_planner.store.replay_plan import make_plan
from dalsegno_planner.store.replay_request import Creation, ReplayRequest
from dalsegno_planner.store.replays import create_replay

PROJECT = "default"
MODULE = "m"
RECORDED, CHANGED = "1" * 64, "2" * 64

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def payload(value: object) -> Payload:
    """An encoded value."""
    encoded = encode(value)
    return Payload(
        codec=encoded.codec,
        digest=encoded.digest,
        size=encoded.size,
        canonical=encoded.canonical,
        inline=encoded.data,
    )


def value_of(content: Payload) -> Any:
    """The value of a payload."""
    return json.loads(content.inline)


@dataclass(frozen=True)
class Recorded:
    """One invocation to be recorded. Its inputs are `in_<upstream>` for what it takes, `p_<name>` and `k`."""

    id: str
    name: str = ""
    takes: Sequence[str] = ()
    after: Sequence[str] = ()
    reads: Sequence[str] = ()
    state: str = "completed"
    kind: str = "step"
    outputs: Sequence[str] = ("output",)
    code_digest: str = RECORDED
    value: object = None
    seconds: float = 1.0
    takes_outputs: dict[str, str] = field(default_factory=dict)


async def connect(dsn: str) -> Database:
    """A connection such as those of the planner's pool."""
    connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
    await prepare_connection(connection)
    return connection


async def record(
    connection: Database,
    steps: Sequence[Recorded],
    *,
    kind: str = "pipeline",
    state: str = "completed",
    inputs: dict[str, object] | None = None,
    flow: str = "training",
) -> Execution:
    """Write a finished execution of these invocations, numbered from 1."""
    found = await executions.get(connection, await write(connection, steps, kind, state, inputs, flow))
    assert found is not None
    return found


async def write(
    connection: Database,
    steps: Sequence[Recorded],
    kind: str = "pipeline",
    state: str = "completed",
    inputs: dict[str, object] | None = None,
    flow: str = "training",
) -> ExecutionId:
    """Write the rows of a finished execution, with the columns that the first schema has."""
    execution_id = new_execution_id()
    numbers = {step.id: number for number, step in enumerate(steps, start=1)}
    given = FlowInputs(values={name: payload(value) for name, value in (inputs or {}).items()})
    await connection.execute(
        "INSERT INTO executions (id, project, name, flow, kind, state, module, code_digest, next_number,"
        " invocation_count, inputs) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        execution_id,
        PROJECT,
        f"run-{execution_id}",
        flow,
        kind,
        state,
        MODULE,
        RECORDED,
        len(steps) + 1,
        len(steps),
        given.SerializeToString(),
    )
    await connection.execute("INSERT INTO lineage VALUES ($1, 0, $1, $2)", execution_id, UNLIMITED)
    await connection.executemany(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module,"
        " code_digest, attempt, upstream, after, reads_inputs, inputs, outputs, options, started_at, finished_at)"
        " VALUES ($1, $2, $2, $3, $4, $5, $6, $7, $8, 1, $9, $10, $11, $12, $13, $14, now(),"
        " now() + $15 * interval '1 s')",
        [_columns(execution_id, step, numbers) for step in steps],
    )
    await connection.execute(
        "INSERT INTO edges SELECT DISTINCT execution_id, u, number FROM invocations, unnest(upstream) u"
        " WHERE execution_id = $1",
        execution_id,
    )
    return execution_id


def _columns(execution_id: ExecutionId, step: Recorded, numbers: dict[str, int]) -> tuple[Any, ...]:
    bindings = {
        f"in_{one}": Binding(output=OutputRef(number=numbers[one], output=step.takes_outputs.get(one, "output")))
        for one in step.takes
    }
    bindings |= {f"p_{name}": Binding(flow_input=name) for name in step.reads}
    if step.kind == "step":
        bindings["k"] = Binding(value=payload(1))
    done = step.state == "completed"
    value = step.id if step.value is None else step.value
    outputs = Outputs(outputs=[Output(name=name, payload=payload(value)) for name in step.outputs])
    declared = StepOptions(outputs=step.outputs if step.outputs != ("output",) else ())
    return (
        execution_id,
        numbers[step.id],
        step.id,
        step.name or step.id,
        step.kind,
        step.state,
        MODULE,
        step.code_digest if step.kind == "step" else "",
        sorted(numbers[one] for one in {*step.takes, *step.after}),
        [numbers[one] for one in step.after],
        list(step.reads),
        Inputs(bindings=bindings).SerializeToString(),
        outputs.SerializeToString() if done and step.outputs else None,
        declared.SerializeToString(),
        step.seconds,
    )


@dataclass(frozen=True)
class Planned:
    """A plan, read to its end."""

    digest: str
    roots: dict[str, set[str]]
    affected: list[str]
    reused: dict[str, str]
    waits: list[str]
    warnings: tuple[str, ...]
    counts: tuple[int, int, int]


async def plan(connection: Database, request: ReplayRequest, page: int = 3, few: int = FEW) -> Planned:
    """Plan a replay, and read every page of the plan."""
    async with connection.transaction():
        made = await make_plan(connection, request, few)
        listed: dict[View, list[PlanEntry]] = {view: [] for view in View}
        for view in View:
            after: int | None = 0
            while after is not None:
                found, after = await entries(connection, made, view, after, page)
                listed[view] += found
    summary = made.summary
    return Planned(
        digest=summary.digest,
        roots={one.invocation_id: {why.reason.value for why in one.reasons} for one in listed[View.ROOTS]},
        affected=[one.invocation_id for one in listed[View.AFFECTED]],
        reused={one.invocation_id: str(one.call_id) for one in listed[View.REUSED]},
        waits=[one.invocation_id for one in listed[View.WAITS]],
        warnings=summary.warnings,
        counts=(summary.root_count, summary.affected_count, summary.reused_count),
    )


async def replay(
    connection: Database, request: ReplayRequest, how: Creation | None = None, few: int = FEW
) -> Execution:
    """Create a replay, as the service does."""
    how = how or Creation()
    async with connection.transaction():
        return await create_replay(connection, await make_plan(connection, request, few), how)


async def finish(connection: Database, execution: Execution, failing: Iterable[str] = ()) -> None:
    """Let everything that the replay has to do complete, or fail, without its dependants being run."""
    failed = list(failing)
    await connection.execute(
        "UPDATE invocations SET called = true, code_digest = $3,"
        " state = CASE WHEN invocation_id = ANY ($2) THEN 'failed' ELSE 'completed' END,"
        " outputs = CASE WHEN invocation_id = ANY ($2) THEN NULL ELSE $4::bytea END"
        " WHERE execution_id = $1 AND state = 'pending'",
        execution.id,
        failed,
        RECORDED,
        Outputs(outputs=[Output(name="output", payload=payload("new"))]).SerializeToString(),
    )
    await connection.execute("DELETE FROM tasks WHERE execution_id = $1", execution.id)
    await connection.execute(
        "UPDATE executions SET state = $2 WHERE id = $1", execution.id, "failed" if failed else "completed"
    )


async def own_rows(connection: Database, execution: Execution) -> dict[str, asyncpg.Record]:
    """The rows that an execution has itself, by invocation ID."""
    rows = await connection.fetch("SELECT * FROM invocations WHERE execution_id = $1", execution.id)
    return {row["invocation_id"]: row for row in rows}


async def tasks(connection: Database, execution: Execution) -> dict[int, str]:
    """The routes of an execution's tasks, by number."""
    rows = await connection.fetch("SELECT number, route FROM tasks WHERE execution_id = $1", execution.id)
    return {row["number"]: row["route"] for row in rows}
