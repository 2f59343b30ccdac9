"""Artifacts: uploaded values are rows of their own, outputs are found by the IDs that carry their place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from dalsegno.errors import NotFoundError, StateError
from dalsegno.v1.value_pb2 import Outputs
from dalsegno_planner.core.execution import UNLIMITED
from dalsegno_planner.core.ids import CallId, ExecutionId, ParsedId, artifact_id, call_id, parse_id
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("artifacts")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored value; `payload` is a serialized Payload. An uploaded one has neither execution nor call."""

    id: UUID
    name: str
    payload: bytes
    created_at: datetime | None
    execution_id: ExecutionId | None = None
    call_id: CallId | None = None


async def insert(connection: Connection, artifact_id: UUID, name: str, created_by: str, payload: bytes) -> Artifact:
    """Store an uploaded value, or the value of an override."""
    created_at = await connection.fetchval(SQL["insert"], artifact_id, name, created_by, payload)
    return Artifact(artifact_id, name, payload, created_at)


async def find(connection: Connection, wanted: UUID) -> Artifact:
    """Return an artifact by its ID, or by that of a call with one output.

    Raises:
        NotFoundError: There is none.
        StateError: The call has several outputs, or none yet.
    """
    row = await connection.fetchrow(SQL["get"], wanted)
    if row is not None:
        return Artifact(**dict(row))
    place = parse_id(wanted)
    # Any UUID parses; one that is no ID of a call has a number that none can have.
    possible = 0 < place.number < UNLIMITED
    call = await connection.fetchrow(SQL["call"], place.execution_id, place.number) if possible else None
    if call is None:
        raise _not_found(wanted)
    return _output(wanted, place, call)


def _output(wanted: UUID, place: ParsedId, call: Record) -> Artifact:
    name = call["invocation_id"]
    if not call["outputs"]:
        raise StateError(
            f"{name!r} of execution {place.execution_id} has no output: it is {call['state']}",
            reason="NO_OUTPUT",
            fields={"artifact": str(wanted), "invocation": name, "state": call["state"]},
        )
    outputs = Outputs.FromString(call["outputs"]).outputs
    index = place.output or 0
    if place.output is None and len(outputs) != 1:
        listed = ", ".join(
            f"{one.name}: {artifact_id(place.execution_id, place.number, at)}" for at, one in enumerate(outputs)
        )
        raise StateError(
            f"{name!r} of execution {place.execution_id} has {len(outputs)} outputs; say which by its ID: {listed}",
            reason="AMBIGUOUS_ARTIFACT",
            fields={"artifact": str(wanted), "invocation": name},
        )
    if index >= len(outputs):
        raise _not_found(wanted)
    return Artifact(
        id=artifact_id(place.execution_id, place.number, index),
        name=outputs[index].name,
        payload=outputs[index].payload.SerializeToString(),
        created_at=call["finished_at"],
        execution_id=call["supplier_id"],
        call_id=call_id(call["supplier_id"], place.number),
    )


def _not_found(wanted: UUID) -> NotFoundError:
    return NotFoundError(
        f"no artifact has the ID {wanted}", reason="ARTIFACT_NOT_FOUND", fields={"artifact": str(wanted)}
    )
