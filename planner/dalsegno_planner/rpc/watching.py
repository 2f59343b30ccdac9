"""Watches executions: what happens to them, in order, until they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

from dalsegno.errors import BackendError, NotFoundError
from dalsegno.v1.execution_pb2 import Execution as ExecutionMessage
from dalsegno.v1.execution_service_pb2 import ExecutionServiceWatchRequest, ExecutionServiceWatchResponse
from dalsegno_planner.core.execution import Event, Execution, ExecutionState
from dalsegno_planner.core.ids import BODY, ExecutionId
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.rpc.convert import invocation_message
from dalsegno_planner.rpc.reading import ExecutionReader
from dalsegno_planner.rpc.results import only_source
from dalsegno_planner.store import events, executions, finding, invocations
from dalsegno_planner.store.executions import Known, Seen
from dalsegno_planner.store.pool import Pool
from dalsegno_planner.times import timestamp

_EVENTS_AT_ONCE = 1_000
_GOING_ON = (ExecutionState.PENDING, ExecutionState.RUNNING)

Response = ExecutionServiceWatchResponse


class SharedLooks:
    """Looks after the states of many executions in one round trip: who asks while one is under way shares the next."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._asked: dict[Known, None] = {}
        self._following: asyncio.Task[Mapping[ExecutionId, Seen | None]] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def changed(self, known: Known) -> Seen | None:
        """Return an execution as it is now, or later, where its state is not the known one; else None.

        Raises:
            NotFoundError: It is not there, or has been deleted.
        """
        self._asked[known] = None
        if self._following is None:
            self._following = asyncio.create_task(self._look())
        found = await asyncio.shield(self._following)
        if known.id not in found:
            return None
        seen = found[known.id]
        if seen is None:
            raise NotFoundError(
                f"execution {known.id} is not there any more",
                reason="EXECUTION_NOT_FOUND",
                fields={"execution": str(known.id)},
            )
        # Another watcher may know another state.
        return seen if seen.execution.state is not known.state else None

    async def _look(self) -> Mapping[ExecutionId, Seen | None]:
        async with self._one_at_a_time:
            asked, self._asked, self._following = self._asked, {}, None
            async with self._pool.acquire() as connection:
                return await executions.changed(connection, asked)


class Watcher:
    """Streams what happens to executions.

    Args:
        pool: The database.
        bus: Wakes watchers of executions that this planner changed, or hears of.
        reader: Finds executions, and makes messages of them.
        poll_interval: Seconds between looks at the database behind the wake-ups.
        stopping: Set when the planner is about to stop.
    """

    def __init__(
        self, pool: Pool, bus: Bus, reader: ExecutionReader, poll_interval: float, stopping: asyncio.Event
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._reader = reader
        self._poll_interval = poll_interval
        self._stopping = stopping
        self._looks = SharedLooks(pool)

    async def watch(self, request: ExecutionServiceWatchRequest) -> AsyncIterator[Response]:
        """Yield what happens, from the event that the request names on, until the execution has ended.

        Raises:
            BackendError: The planner stops; another one goes on from the last event.
        """
        responses = self._states_of(request) if request.execution_only else self._events_of(request)
        async for response in responses:
            yield response

    async def _states_of(self, request: ExecutionServiceWatchRequest) -> AsyncIterator[Response]:
        """Yield the execution at each change of its state, and when it turns out that nothing can run it.

        Who asks for what holds it up alone is not told that it goes on, but after that.
        """
        whole_id = finding.whole_id(request.execution)
        known = Known(ExecutionId(whole_id) if whole_id is not None else (await self._find(request)).id)
        execution: Execution | None = None
        tells_all, pending_reason, in_vain, held_up = not request.holdups_only, "", False, False
        while execution is None or not execution.state.finished:
            with self._change_of(known.id, state_only=True) as change:
                seen = await (self._looks.changed(known) if execution is not None else self._first(request, known))
                if seen is None and in_vain and execution is not None:
                    reason = await self._reader.pending_reason(execution)
                    seen = Seen(await self._reader.get(execution.id)) if reason != pending_reason else None
                if seen is not None:
                    execution = now = seen.execution
                    known = Known(now.id, now.state, only_source(now))
                    if tells_all or held_up or in_vain or now.state not in _GOING_ON:
                        said = await self._reader.message(now, with_reason=in_vain, of_only_source=seen.outputs)
                        pending_reason = said.pending_reason
                        held_up = bool(pending_reason) or now.state not in _GOING_ON
                        yield _response(said, now.last_event, now)
                if execution is not None and not execution.state.finished:
                    await self._bus.wait(known.id, change, self._poll_interval)
                in_vain = change.cancelled()

    async def _first(self, request: ExecutionServiceWatchRequest, known: Known) -> Seen | None:
        try:
            return await self._looks.changed(known)
        except NotFoundError:  # it may be a run name that looks like an ID
            return Seen(await self._find(request))

    async def _events_of(self, request: ExecutionServiceWatchRequest) -> AsyncIterator[Response]:
        """Yield every event, and the execution where it changed without one."""
        execution, after = await self._find(request), request.after_event
        said = await self._reader.message(execution, with_result=False)
        yield _response(said, after, execution)
        while True:
            with self._change_of(execution.id) as change:
                happened = await self._read_events(execution, after)
                for response in await self._responses(execution, happened):
                    said = response.execution if response.HasField("execution") else said
                    yield response
                after = happened[-1].event if happened else after
                execution = await self._reader.get(execution.id)
                if after < execution.last_event:
                    continue
                if execution.state.finished:
                    yield _response(await self._reader.message(execution), after, execution)
                    return
                await self._bus.wait(execution.id, change, self._poll_interval)
                present = await self._reader.message(execution, with_result=False, with_reason=change.cancelled())
            if present.state != said.state or (change.cancelled() and present.pending_reason != said.pending_reason):
                yield _response(present, after, execution)
                said = present

    async def _find(self, request: ExecutionServiceWatchRequest) -> Execution:
        return await self._reader.find(request.execution, request.project)

    async def _read_events(self, execution: Execution, after: int) -> list[Event]:
        async with self._pool.acquire() as connection:
            return await events.after(connection, execution.id, after, _EVENTS_AT_ONCE)

    async def _responses(self, execution: Execution, happened: Sequence[Event]) -> list[Response]:
        """Return what is said of events; the end of the execution is said by itself, with its result."""
        numbers = {event.number for event in happened if event.number != BODY}
        called = {}
        if numbers:
            async with self._pool.acquire() as connection:
                found = await invocations.get_some(connection, execution.id, execution.kind, numbers)
            called = {one.number: one for one in found}
        said = []
        for event in happened:
            response = Response(event=event.event, time=timestamp(event.at))
            if event.number == BODY and not ExecutionState(event.state).finished:
                then = replace(execution, state=ExecutionState(event.state))
                response.execution.CopyFrom(await self._reader.message(then, with_result=False))
            elif event.number in called:
                message = invocation_message(called[event.number], state=event.state, with_values=False)
                response.invocation.CopyFrom(message)
            else:
                continue
            said.append(response)
        return said

    @contextmanager
    def _change_of(self, execution_id: UUID, *, state_only: bool = False) -> Iterator[asyncio.Future[None]]:
        """A future for the next change, taken before looking at the state that it guards."""
        if self._stopping.is_set():
            raise BackendError(
                "this planner is stopping; watch on another one, or on this one once it is back",
                reason="PLANNER_STOPPING",
            )
        change = self._bus.watch(execution_id, state_only=state_only)
        try:
            yield change
        finally:
            self._bus.unwatch(execution_id, change)


def _response(message: ExecutionMessage, event: int, execution: Execution) -> Response:
    moment = execution.finished_at or execution.started_at or execution.created_at
    return Response(event=event, time=timestamp(moment), execution=message)
