"""The recorded calls that a body is matched against.

Outputs go with them, up to the inline limit above which values are in the object store anyway: a body that repeats
itself takes nearly each, and a reference would cost it a round trip. Pages keep messages small.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from asyncpg import Record

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno_planner.store.bindings import leaves
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

_QUERIES = load("dispatch")
_PAGE_BYTES = 1 << 20
_ROWS_AT_ONCE = 500
_REUSE = executor_service_pb2.RECORDED_CALL_ACTION_REUSE
_EXECUTE = executor_service_pb2.RECORDED_CALL_ACTION_EXECUTE
_AWAIT = executor_service_pb2.RECORDED_CALL_ACTION_AWAIT


async def recorded_calls(
    connection: Connection, execution_id: UUID, count: int, first: executor_service_pb2.RecordedCalls | None = None
) -> AsyncIterator[executor_service_pb2.RecordedCalls]:
    """Yield the recorded calls of an execution, in pages of about 1 MiB; at least one page, the last without `more`.

    Args:
        connection: The database.
        execution_id: The execution.
        count: About how many calls there are: few are read in one round trip.
        first: The empty message that becomes the first page, where it is: a page that is put into another message is
            serialized and parsed again.
    """
    pages = _Pages(executor_service_pb2.RecordedCalls() if first is None else first)
    if count <= _ROWS_AT_ONCE:
        for row in await connection.fetch(_QUERIES["recorded_calls"], execution_id):
            if (full := pages.add(row)) is not None:
                yield full
    else:
        async with connection.transaction(readonly=True):
            async for row in connection.cursor(_QUERIES["recorded_calls"], execution_id, prefetch=_ROWS_AT_ONCE):
                if (full := pages.add(row)) is not None:
                    yield full
    yield pages.present


class _Pages:
    """Puts recorded calls into pages."""

    def __init__(self, first: executor_service_pb2.RecordedCalls) -> None:
        self.present = first
        self._size = 0
        self._places: dict[int, int] = {}

    def add(self, row: Record) -> executor_service_pb2.RecordedCalls | None:
        """Add a call to the present page; return the one before, where there was no room in it."""
        if row["yields"]:
            # They come with the first row.
            self._places = {number: place for place, number in sorted(row["yields"], reverse=True)}
        # What of it is left out is not worth a look, nor is what it has besides.
        size, full = len(row["inputs"]) + len(row["outputs"] or b"") + len(row["failure"] or b""), None
        if self._size and self._size + size > _PAGE_BYTES:
            full, self.present, self._size = self.present, executor_service_pb2.RecordedCalls(), 0
            full.more = True
        call = self.present.calls.add()
        _fill(call, row)
        if call.number in self._places:
            call.yielded = self._places[call.number]
        self._size += size
        return full


def awaited_numbers(page: executor_service_pb2.RecordedCalls) -> list[int]:
    """Return the calls whose outcome the body is still to be told."""
    return [call.number for call in page.calls if call.action == _AWAIT]


def _fill(call: executor_service_pb2.RecordedCall, row: Record) -> None:
    """Fill in a call from a row of the query `recorded_calls`. What is nothing anyway is not set: each costs."""
    call.number, call.name, call.invocation_id = row["number"], row["name"], row["invocation_id"]
    call.kind = execution_pb2.INVOCATION_KIND_WAIT if row["kind"] == "wait" else execution_pb2.INVOCATION_KIND_STEP
    action = call.action = _action(row)
    if row["position"]:
        call.position = row["position"]
    if row["own"]:
        call.own = True
    if row["wait_state"] == "timed_out":
        call.timed_out = True
    if row["attempts_before"]:
        call.attempts_before = row["attempts_before"]
    _fill_inputs(call, row)
    overridden = row["output_overridden"]
    if overridden:
        call.output_overridden, call.override_is_new = True, row["override_is_new"]
    # An overridden output is what the body receives, also of a call that executes.
    if row["outputs"] is not None and (action == _REUSE or overridden):
        call.outputs.ParseFromString(row["outputs"])
    if action == _REUSE and row["failure"] is not None and not overridden:
        call.failure.ParseFromString(row["failure"])


def _fill_inputs(call: executor_service_pb2.RecordedCall, row: Record) -> None:
    call.inputs.ParseFromString(row["inputs"])
    bindings = call.inputs.bindings
    for name in row["overridden_inputs"]:
        if name in bindings:
            call.overridden_inputs.bindings[name].CopyFrom(bindings[name])
    for kind, leaf in leaves(*[bindings[name] for name in bindings]):
        if kind == "value":
            leaf.value.ClearField("content")


def _action(row: Record) -> executor_service_pb2.RecordedCallAction.ValueType:
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
