"""WaitService: convert, call, convert back; and which wait an answer is for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema
from grpc import aio
from referencing import Registry
from referencing.exceptions import Unresolvable

from dalsegno.errors import Problem, StateError, WaitValidationError
from dalsegno.v1 import wait_service_pb2 as messages
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_UNKNOWN, Failure
from dalsegno.v1.value_pb2 import Payload
from dalsegno.v1.wait_service_pb2_grpc import WaitServiceServicer
from dalsegno_planner.core.execution import Execution, ExecutionState, Wait, WaitState
from dalsegno_planner.core.transitions import Operation
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.rpc import convert
from dalsegno_planner.rpc.reading import ExecutionReader
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store import executions, waits
from dalsegno_planner.store.legality import check_transition
from dalsegno_planner.store.objects import Objects
from dalsegno_planner.store.pool import Connection, Pool, in_transaction

_LISTED, _MOST_LISTED = 500, 5_000
_GATE: dict[str, Any] = {"type": "boolean"}


class WaitServicer(WaitServiceServicer):
    """Reads, answers and aborts the waits of executions."""

    def __init__(self, pool: Pool, bus: Bus, reader: ExecutionReader, values: ValueReader, objects: Objects) -> None:
        self._pool = pool
        self._bus = bus
        self._reader = reader
        self._values = values
        self._objects = objects

    async def List(
        self,
        request: messages.WaitServiceListRequest,
        context: aio.ServicerContext[messages.WaitServiceListRequest, messages.WaitServiceListResponse],
    ) -> messages.WaitServiceListResponse:
        after = convert.page_number(request.page_token)
        size = convert.page_size(request.page_size, _LISTED, _MOST_LISTED)
        execution = await self._reader.find(request.execution, request.project)
        async with self._pool.acquire() as connection:
            page, following = await waits.list_page(
                connection, execution.id, after=after, pending_only=request.pending_only, limit=size
            )
        return messages.WaitServiceListResponse(
            waits=[convert.wait_message(wait) for wait in page],
            next_page_token=convert.page_token(str(following)) if following is not None else "",
        )

    async def Answer(
        self,
        request: messages.WaitServiceAnswerRequest,
        context: aio.ServicerContext[messages.WaitServiceAnswerRequest, messages.WaitServiceAnswerResponse],
    ) -> messages.WaitServiceAnswerResponse:
        execution = await self._reader.find(request.execution, request.project)
        async with self._pool.acquire() as connection:
            payload = await self._values.read(connection, request.value, "value")
        document = await self._document(payload)

        async def answer(connection: Connection) -> int:
            state = await waits.lock_execution(connection, execution.id)
            asked = await _all_waits(connection, execution)
            wait = choose(execution, asked, request.wait)
            check_transition(Operation.ANSWER, execution.id, state)
            check_answer(wait, payload, document)
            running = state.value == "running"
            await waits.answer(connection, execution.id, wait.number, payload, request.answered_by, was_running=running)
            return wait.number

        number = await in_transaction(self._pool, answer)
        self._bus.new_work()
        self._bus.execution_changed(execution.id)
        async with self._pool.acquire() as connection:
            asked = await _all_waits(connection, execution)
        answered = next(wait for wait in asked if wait.number == number)
        return messages.WaitServiceAnswerResponse(
            wait=convert.wait_message(answered),
            execution=await self._reader.message(await self._reader.get(execution.id)),
        )

    async def Abort(
        self,
        request: messages.WaitServiceAbortRequest,
        context: aio.ServicerContext[messages.WaitServiceAbortRequest, messages.WaitServiceAbortResponse],
    ) -> messages.WaitServiceAbortResponse:
        execution = await self._reader.find(request.execution, request.project)

        async def abort(connection: Connection) -> tuple[int, bool]:
            state = await waits.lock_execution(connection, execution.id)
            asked = await _all_waits(connection, execution)
            if state is ExecutionState.CANCELLED and (before := _aborted(asked, request.wait)) is not None:
                return before.number, False
            wait = choose(execution, asked, request.wait)
            check_transition(Operation.ABORT_WAIT, execution.id, state)
            by = f" by {request.aborted_by}" if request.aborted_by else ""
            failure = Failure(
                origin=FAILURE_ORIGIN_UNKNOWN,
                message=f"cancelled: the wait {wait.invocation_id!r} was aborted{by}",
                invocation_id=wait.invocation_id,
                reason="WAIT_ABORTED",
            )
            return wait.number, await executions.cancel(connection, execution.id, failure.SerializeToString())

        number, cancelled = await in_transaction(self._pool, abort)
        if cancelled:
            self._bus.cancelled(execution.id)
            self._bus.execution_changed(execution.id)
        async with self._pool.acquire() as connection:
            asked = await _all_waits(connection, execution)
        aborted = next(wait for wait in asked if wait.number == number)
        return messages.WaitServiceAbortResponse(
            wait=convert.wait_message(aborted),
            execution=await self._reader.message(await self._reader.get(execution.id)),
        )

    async def _document(self, payload: Payload) -> bytes:
        """The encoded content of an answer."""
        if payload.WhichOneof("content") == "inline":
            return payload.inline
        return b"".join([chunk async for chunk in self._objects.read(payload.object_key, 1024 * 1024)])


def _aborted(asked: Sequence[Wait], wanted: str) -> Wait | None:
    """Return the wait that is meant, where it is aborted already."""
    aborted = [wait for wait in asked if wait.state is WaitState.ABORTED]
    meant = [wait for wait in aborted if wanted in ("", wait.invocation_id, wait.name)]
    return meant[-1] if meant else None


def choose(execution: Execution, asked: Sequence[Wait], wanted: str) -> Wait:
    """Return the pending wait that an answer is for; without a name, the only one.

    Raises:
        StateError: None is pending, the name is unknown or answered, or several are pending and none was named.
    """
    pending = [wait for wait in asked if wait.state is WaitState.PENDING]
    by_id = [wait for wait in asked if wait.invocation_id == wanted]
    meant = (
        by_id or [wait for wait in pending if wait.name == wanted] or [wait for wait in asked if wait.name == wanted]
    )
    if wanted and not meant:
        raise _no_wait(execution, f"it has no wait {wanted!r}", "UNKNOWN_WAIT", pending)
    open_waits = [wait for wait in meant if wait in pending] if wanted else pending
    if len(open_waits) == 1:
        return open_waits[0]
    if open_waits:
        raise _no_wait(execution, "several waits are pending, say which", "AMBIGUOUS_WAIT", open_waits)
    if not wanted:
        raise _no_wait(execution, "no wait is pending", "NO_PENDING_WAIT", pending)
    state = meant[-1].state.value.replace("_", " ")
    raise _no_wait(execution, f"the wait {wanted!r} is {state} already", "WAIT_NOT_PENDING", pending)


def check_answer(wait: Wait, payload: Payload, document: bytes) -> None:
    """Check an answer against what the wait asks for.

    Raises:
        WaitValidationError: It does not fit; with every place where it does not.
    """
    if payload.codec not in ("json", "text"):
        raise _misfit(wait, [Problem("value", f"an answer is JSON, and this one has the codec {payload.codec!r}")])
    value = json.loads(document) if payload.codec == "json" else document.decode()
    schema = json.loads(wait.schema) if wait.schema else _GATE
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        # A registry of its own: without one, references to other documents would be fetched from the network.
        errors = sorted(kind(schema, registry=Registry()).iter_errors(value), key=lambda error: error.json_path)
    except (jsonschema.SchemaError, Unresolvable) as error:
        raise StateError(
            f"the schema of the wait {wait.invocation_id!r} cannot be checked: {error.args[0]}; mend it in the flow, "
            "and cancel this execution",
            reason="BAD_WAIT_SCHEMA",
            fields={"wait": wait.invocation_id},
        ) from error
    if errors:
        raise _misfit(wait, [Problem(error.json_path.replace("$", "value", 1), error.message) for error in errors])


def _misfit(wait: Wait, problems: Sequence[Problem]) -> WaitValidationError:
    expected = wait.schema or "true (go on) or false (abort)"
    return WaitValidationError(
        f"the answer does not fit the wait {wait.invocation_id!r}, which stays open; it asks for {expected}",
        fields={"wait": wait.invocation_id, "schema": wait.schema},
        problems=problems,
    )


def _no_wait(execution: Execution, what: str, reason: str, pending: Sequence[Wait]) -> StateError:
    listed = "; ".join(
        f"{wait.invocation_id}: {wait.question}" if wait.question else wait.invocation_id for wait in pending
    )
    others = f"; pending: {listed}" if listed else "" if reason == "NO_PENDING_WAIT" else "; none is pending"
    return StateError(
        f"execution {execution.id} ({execution.name}) is {execution.state}, and {what}{others}",
        reason=reason,
        fields={"execution": str(execution.id), "pending": ", ".join(wait.invocation_id for wait in pending)},
    )


async def _all_waits(connection: Connection, execution: Execution) -> list[Wait]:
    page, _ = await waits.list_page(connection, execution.id, after=0, pending_only=False, limit=_MOST_LISTED)
    return page
