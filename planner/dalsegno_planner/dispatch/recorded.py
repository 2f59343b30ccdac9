"""The recorded calls that a body is matched against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno_planner.store.bindings import leaves
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

_QUERIES = load("dispatch")
_PAGE_BYTES = 1 << 20
_REUSE = executor_service_pb2.RECORDED_CALL_ACTION_REUSE
_EXECUTE = executor_service_pb2.RECORDED_CALL_ACTION_EXECUTE
_AWAIT = executor_service_pb2.RECORDED_CALL_ACTION_AWAIT


async def recorded_calls(
    connection: Connection, execution_id: UUID
) -> AsyncIterator[executor_service_pb2.RecordedCalls]:
    """Yield the recorded calls of an execution, in pages of about 1 MiB; at least one page, the last without `more`."""
    page, size = executor_service_pb2.RecordedCalls(), 0
    places: dict[int, int] = {}
    async with connection.transaction(readonly=True):
        async for row in connection.cursor(_QUERIES["recorded_calls"], execution_id, prefetch=500):
            places = places or {number: place for place, number in sorted(row["yields"] or (), reverse=True)}
            call = recorded_call(dict(row))
            call.yielded = places.get(call.number, 0)
            if size and size + call.ByteSize() > _PAGE_BYTES:
                page.more = True
                yield page
                page, size = executor_service_pb2.RecordedCalls(), 0
            page.calls.append(call)
            size += call.ByteSize()
    yield page


def awaited_numbers(page: executor_service_pb2.RecordedCalls) -> list[int]:
    """Return the calls whose outcome the body is still to be told."""
    return [call.number for call in page.calls if call.action == _AWAIT]


def recorded_call(row: Mapping[str, Any]) -> executor_service_pb2.RecordedCall:
    """Convert a row of the query `recorded_calls`."""
    call = executor_service_pb2.RecordedCall(
        number=row["number"],
        position=row["position"],
        kind=execution_pb2.INVOCATION_KIND_WAIT if row["kind"] == "wait" else execution_pb2.INVOCATION_KIND_STEP,
        name=row["name"],
        invocation_id=row["invocation_id"],
        action=_action(row),
        output_overridden=row["output_overridden"],
        override_is_new=row["override_is_new"],
        own=row["own"],
        timed_out=row["wait_state"] == "timed_out",
        attempts_before=row["attempts_before"],
    )
    call.inputs.ParseFromString(row["inputs"])
    overridden = set(row["overridden_inputs"])
    for name, binding in call.inputs.bindings.items():
        if name in overridden:
            call.overridden_inputs.bindings[name].CopyFrom(binding)
        for kind, leaf in leaves(binding):
            if kind == "value":
                leaf.value.ClearField("content")
    # An overridden output is what the body receives, also of a call that executes.
    if row["outputs"] is not None and (call.action == _REUSE or row["output_overridden"]):
        call.outputs.ParseFromString(row["outputs"])
    if call.action == _REUSE and row["failure"] is not None and not row["output_overridden"]:
        call.failure.ParseFromString(row["failure"])
    return call


def _action(row: Mapping[str, Any]) -> executor_service_pb2.RecordedCallAction.ValueType:
    if row["position"] == 0:
        return _EXECUTE
    match row["state"]:
        case "completed" | "failed" if row["kind"] == "step" or row["own"]:
            return _REUSE
        case "not_reached" if row["own"] and row["failure"] is not None:
            return _REUSE
        case "reused":
            return _REUSE
        case "waiting" if row["own"]:
            return _REUSE if row["wait_state"] == "timed_out" else _AWAIT
        case "pending" if row["outstanding"]:
            return _AWAIT
        case _:
            return _EXECUTE
