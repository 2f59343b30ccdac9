"""ExecutionService: convert, call, convert back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from grpc import aio

from dalsegno.errors import UsageError
from dalsegno.v1 import execution_service_pb2 as messages
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_UNKNOWN, Failure
from dalsegno.v1.execution_service_pb2_grpc import ExecutionServiceServicer
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.rpc import convert
from dalsegno_planner.rpc.exporting import Exporter
from dalsegno_planner.rpc.importing import Importer
from dalsegno_planner.rpc.reading import ExecutionReader
from dalsegno_planner.rpc.selecting import selected
from dalsegno_planner.rpc.starting import Starter
from dalsegno_planner.rpc.watching import Watcher
from dalsegno_planner.store import deletion, executions, invocations, lifecycle
from dalsegno_planner.store.executions import ExecutionFilter
from dalsegno_planner.store.lifecycle import Pin, Retry
from dalsegno_planner.store.pool import Connection, Pool, in_transaction

_LISTED, _MOST_LISTED = 50, 1_000
_INVOCATIONS, _MOST_INVOCATIONS = 500, 5_000


class ExecutionServicer(ExecutionServiceServicer):
    """Starts executions, and reads, watches and ends them."""

    def __init__(
        self, pool: Pool, bus: Bus, reader: ExecutionReader, starter: Starter, importer: Importer, watcher: Watcher
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._reader = reader
        self._starter = starter
        self._importer = importer
        self._watcher = watcher
        self._exporter = Exporter(pool)

    async def Start(
        self,
        request_iterator: AsyncIterator[messages.ExecutionServiceStartRequest],
        context: aio.ServicerContext[messages.ExecutionServiceStartRequest, messages.ExecutionServiceStartResponse],
    ) -> messages.ExecutionServiceStartResponse:
        execution = await self._starter.start(request_iterator)
        return messages.ExecutionServiceStartResponse(execution=await self._reader.message(execution))

    async def Get(
        self,
        request: messages.ExecutionServiceGetRequest,
        context: aio.ServicerContext[messages.ExecutionServiceGetRequest, messages.ExecutionServiceGetResponse],
    ) -> messages.ExecutionServiceGetResponse:
        execution = await self._reader.find(request.execution, request.project)
        message = await self._reader.message(execution, with_reason=True)
        return messages.ExecutionServiceGetResponse(execution=message)

    async def List(
        self,
        request: messages.ExecutionServiceListRequest,
        context: aio.ServicerContext[messages.ExecutionServiceListRequest, messages.ExecutionServiceListResponse],
    ) -> messages.ExecutionServiceListResponse:
        source = convert.optional_uuid(request.original_exec_id, "original_exec_id")
        only = ExecutionFilter(
            project=request.project,
            flow=request.flow,
            states=[convert.execution_state(state, "states") for state in request.states],
            source_id=ExecutionId(source) if source is not None else None,
        )
        before = convert.page_uuid(request.page_token)
        size = convert.page_size(request.page_size, _LISTED, _MOST_LISTED)
        async with self._pool.acquire() as connection:
            listed = await executions.list_page(connection, only, before, size)
        return messages.ExecutionServiceListResponse(
            executions=await self._reader.messages(listed),
            next_page_token=convert.page_token(str(listed[-1].id)) if len(listed) == size else "",
        )

    async def ListInvocations(
        self,
        request: messages.ExecutionServiceListInvocationsRequest,
        context: aio.ServicerContext[
            messages.ExecutionServiceListInvocationsRequest, messages.ExecutionServiceListInvocationsResponse
        ],
    ) -> messages.ExecutionServiceListInvocationsResponse:
        after = convert.page_number(request.page_token)
        size = convert.page_size(request.page_size, _INVOCATIONS, _MOST_INVOCATIONS)
        execution = await self._reader.find(request.execution, request.project)
        # The replay of a single step reads its inputs from its source, and has nothing else of it: what is downstream
        # there was not made of what this step returns now.
        own_only = execution.single_step
        async with self._pool.acquire() as connection:
            if request.selector:
                numbers = await selected(connection, execution.id, request.selector)
                page, following = await invocations.page_of(
                    connection, execution.id, execution.kind, numbers, after, size, own_only=own_only
                )
            else:
                page, following = await invocations.list_page(
                    connection, execution.id, execution.kind, after, size, own_only=own_only
                )
        return messages.ExecutionServiceListInvocationsResponse(
            invocations=[convert.invocation_message(one) for one in page],
            next_page_token=convert.page_token(str(following)) if following is not None else "",
        )

    async def ListAttempts(
        self,
        request: messages.ExecutionServiceListAttemptsRequest,
        context: aio.ServicerContext[
            messages.ExecutionServiceListAttemptsRequest, messages.ExecutionServiceListAttemptsResponse
        ],
    ) -> messages.ExecutionServiceListAttemptsResponse:
        if request.number >= 2**31:
            raise UsageError(f"no invocation has the number {request.number}", reason="INVALID_NUMBER")
        execution = await self._reader.find(request.execution, "")
        async with self._pool.acquire() as connection:
            attempts = await invocations.list_attempts(connection, execution.id, request.number)
        return messages.ExecutionServiceListAttemptsResponse(
            attempts=[convert.attempt_message(attempt) for attempt in attempts]
        )

    async def Watch(
        self,
        request: messages.ExecutionServiceWatchRequest,
        context: aio.ServicerContext[messages.ExecutionServiceWatchRequest, messages.ExecutionServiceWatchResponse],
    ) -> AsyncIterator[messages.ExecutionServiceWatchResponse]:
        async for response in self._watcher.watch(request):
            yield response

    async def Cancel(
        self,
        request: messages.ExecutionServiceCancelRequest,
        context: aio.ServicerContext[messages.ExecutionServiceCancelRequest, messages.ExecutionServiceCancelResponse],
    ) -> messages.ExecutionServiceCancelResponse:
        execution = await self._reader.find(request.execution, request.project)
        text = f"cancelled: {request.reason}" if request.reason else "cancelled"
        failure = Failure(origin=FAILURE_ORIGIN_UNKNOWN, message=text, reason="CANCELLED").SerializeToString()

        async def cancel(connection: Connection) -> bool:
            return await executions.cancel(connection, execution.id, failure)

        if await in_transaction(self._pool, cancel):
            self._bus.cancelled(execution.id)
            self._bus.execution_changed(execution.id)
        message = await self._reader.message(await self._reader.get(execution.id))
        return messages.ExecutionServiceCancelResponse(execution=message)

    async def Retry(
        self,
        request: messages.ExecutionServiceRetryRequest,
        context: aio.ServicerContext[messages.ExecutionServiceRetryRequest, messages.ExecutionServiceRetryResponse],
    ) -> messages.ExecutionServiceRetryResponse:
        execution = await self._reader.find(request.execution, request.project)
        retry = _retry(request, execution)
        if execution.state.finished:
            # Steps of a flow that has failed may still run beside it; what they say counts no more.
            self._bus.cancelled(execution.id)
        await in_transaction(self._pool, lambda connection: lifecycle.retry(connection, execution.id, retry))
        self._wake(execution.id)
        message = await self._reader.message(await self._reader.get(execution.id), with_reason=True)
        return messages.ExecutionServiceRetryResponse(execution=message)

    async def Resume(
        self,
        request: messages.ExecutionServiceResumeRequest,
        context: aio.ServicerContext[messages.ExecutionServiceResumeRequest, messages.ExecutionServiceResumeResponse],
    ) -> messages.ExecutionServiceResumeResponse:
        execution = await self._reader.find(request.execution, request.project)
        await in_transaction(self._pool, lambda connection: lifecycle.resume(connection, execution.id))
        self._wake(execution.id)
        message = await self._reader.message(await self._reader.get(execution.id), with_reason=True)
        return messages.ExecutionServiceResumeResponse(execution=message)

    async def Delete(
        self,
        request: messages.ExecutionServiceDeleteRequest,
        context: aio.ServicerContext[messages.ExecutionServiceDeleteRequest, messages.ExecutionServiceDeleteResponse],
    ) -> messages.ExecutionServiceDeleteResponse:
        execution = await self._reader.find(request.execution, request.project)
        await in_transaction(self._pool, lambda connection: deletion.delete(connection, execution.id))
        return messages.ExecutionServiceDeleteResponse()

    async def Import(
        self,
        request_iterator: AsyncIterator[messages.ExecutionServiceImportRequest],
        context: aio.ServicerContext[messages.ExecutionServiceImportRequest, messages.ExecutionServiceImportResponse],
    ) -> messages.ExecutionServiceImportResponse:
        execution = await self._importer.record(request_iterator)
        return messages.ExecutionServiceImportResponse(execution=await self._reader.message(execution))

    async def Export(
        self,
        request: messages.ExecutionServiceExportRequest,
        context: aio.ServicerContext[messages.ExecutionServiceExportRequest, messages.ExecutionServiceExportResponse],
    ) -> AsyncIterator[messages.ExecutionServiceExportResponse]:
        execution = await self._reader.find(request.execution, request.project)
        async for response in self._exporter.export(execution):
            yield response

    def _wake(self, execution_id: UUID) -> None:
        self._bus.new_work()
        self._bus.execution_changed(execution_id)


def _retry(request: messages.ExecutionServiceRetryRequest, execution: Execution) -> Retry:
    pins = [Pin(one.module, one.name, one.pinned_digest) for one in request.pinned]
    own = (execution.module, execution.flow)
    return Retry(
        request_id=convert.optional_uuid(request.request_id, "request_id"),
        pinned_digest=next((pin.digest for pin in pins if (pin.module, pin.name) == own), ""),
        steps=pins,
    )
