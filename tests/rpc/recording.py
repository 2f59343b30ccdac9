"""Changes to executions as the dispatcher makes them, for tests of what only reads them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from dalsegno.v1.value_pb2 import Output, Outputs
from dalsegno_planner.store.pool import Connection
from tests.rpc.serving import json_payload


async def record_events(connection: Connection, execution_id: str, *changes: tuple[int, str]) -> None:
    """Append events: the number of an invocation, or 0 for the execution, and the state."""
    async with connection.transaction():
        last = await connection.fetchval(
            "UPDATE executions SET last_event = last_event + $2 WHERE id = $1 RETURNING last_event",
            UUID(execution_id),
            len(changes),
        )
        for event, (number, state) in enumerate(changes, last - len(changes) + 1):
            await connection.execute(
                "INSERT INTO events (execution_id, event, number, state) VALUES ($1, $2, $3, $4)",
                UUID(execution_id),
                event,
                number,
                state,
            )


async def set_state(connection: Connection, execution_id: str, state: str) -> None:
    """Put an execution into a state, with its event."""
    finished = state in ("completed", "failed", "cancelled")
    async with connection.transaction():  # as in a commit: no watcher sees the state without its event
        await connection.execute(
            "UPDATE executions SET state = $2, finished_at = CASE WHEN $3 THEN clock_timestamp() END WHERE id = $1",
            UUID(execution_id),
            state,
            finished,
        )
        await record_events(connection, execution_id, (0, state))


async def complete(
    connection: Connection, execution_id: str, number: int, *values: object, names: Sequence[str] = ("output",)
) -> None:
    """Complete an invocation with outputs."""
    outputs = Outputs(
        outputs=[Output(name=name, payload=json_payload(value)) for name, value in zip(names, values, strict=True)]
    )
    await connection.execute("DELETE FROM tasks WHERE execution_id = $1 AND number = $2", UUID(execution_id), number)
    await connection.execute(
        "UPDATE invocations SET state = 'completed', outputs = $3, finished_at = clock_timestamp(), attempt = 1"
        " WHERE execution_id = $1 AND number = $2",
        UUID(execution_id),
        number,
        outputs.SerializeToString(),
    )


async def ask(
    connection: Connection,
    execution_id: str,
    number: int,
    name: str,
    *,
    schema: str = "",
    invocation_id: str = "",
    timeout: float | None = None,
    question: str = "",
) -> None:
    """Record a wait of a flow whose body has ended for it."""
    key = (UUID(execution_id), number)
    await connection.execute(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module)"
        " VALUES ($1, $2, $2, $3, $4, 'wait', 'waiting', '')",
        *key,
        invocation_id or name,
        name,
    )
    await connection.execute(
        "INSERT INTO waits (execution_id, number, question, schema, deadline)"
        " VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))",
        *key,
        question,
        schema,
        timeout,
    )
    await connection.execute("DELETE FROM tasks WHERE execution_id = $1", UUID(execution_id))
    await connection.execute(
        "UPDATE executions SET state = 'waiting', body_epoch = 3, next_number = $2 + 1 WHERE id = $1", *key
    )


async def replay(connection: Connection, source: str, replay_id: UUID, rerun: Sequence[int]) -> None:
    """Create a replay of an execution in which some invocations run again and the rest is reused."""
    await connection.execute(
        "INSERT INTO executions (id, project, name, flow, kind, state, module, source_id, invocation_count)"
        " SELECT $2, project, $3, flow, kind, 'running', module, id, invocation_count FROM executions WHERE id = $1",
        UUID(source),
        replay_id,
        str(replay_id),
    )
    await connection.execute(
        "INSERT INTO lineage VALUES ($2, 0, $2, 2147483647), ($2, 1, $1, 1000)", UUID(source), replay_id
    )
    await connection.execute(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module)"
        " SELECT $2, number, position, invocation_id, name, 'pending', module FROM invocations"
        " WHERE execution_id = $1 AND number = ANY ($3)",
        UUID(source),
        replay_id,
        rerun,
    )
