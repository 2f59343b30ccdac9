"""ReplayService: convert, call, convert back."""

from __future__ import annotations

from grpc import aio

from dalsegno.errors import DalsegnoError
from dalsegno.v1 import replay_service_pb2 as messages
from dalsegno.v1.replay_service_pb2_grpc import ReplayServiceServicer
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.lanes import certain_lane
from dalsegno_planner.core.plan import PlanSummary
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.rpc import convert
from dalsegno_planner.rpc import replay_conversions as conversions
from dalsegno_planner.rpc.headers import definition_rows
from dalsegno_planner.rpc.reading import ExecutionReader
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store import replays
from dalsegno_planner.store.definitions import Definitions
from dalsegno_planner.store.objects import Objects
from dalsegno_planner.store.pool import TO_BE_REPEATED, Connection, Pool, in_transaction
from dalsegno_planner.store.refusal import refusal
from dalsegno_planner.store.replay_entries import View, entries
from dalsegno_planner.store.replay_needs import of_missing
from dalsegno_planner.store.replay_plan import Plan as MadePlan
from dalsegno_planner.store.replay_plan import make_plan, plan_of_few
from dalsegno_planner.store.replay_request import Creation, ReplayRequest

_PAGE, _LARGEST_PAGE = 500, 5_000
_LISTED = 1_000


class ReplayServicer(ReplayServiceServicer):
    """Plans and creates replays."""

    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        reader: ExecutionReader,
        values: ValueReader,
        objects: Objects,
        definitions: Definitions,
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._reader = reader
        self._requests = conversions.RequestReader(values)
        self._objects = objects
        self._definitions = definitions

    async def Plan(
        self,
        request: messages.ReplayServicePlanRequest,
        context: aio.ServicerContext[messages.ReplayServicePlanRequest, messages.ReplayServicePlanResponse],
    ) -> messages.ReplayServicePlanResponse:
        wanted = await self._requests.request(request.spec)
        view = conversions.view(request.view)
        after = convert.page_number(request.page_token)
        size = convert.page_size(request.page_size, _PAGE, _LARGEST_PAGE)

        async def work(connection: Connection) -> messages.ReplayServicePlanResponse:
            plan = await make_plan(connection, wanted)
            return await self._response(connection, plan, view, after, size)

        if view is not View.REUSED:  # which is read beside what is marked in temporary tables
            async with self._pool.acquire() as connection:
                plan = await plan_of_few(connection, wanted)
                if plan is not None:
                    return await self._response(connection, plan, view, after, size)
        return await in_transaction(self._pool, work)

    async def Create(
        self,
        request: messages.ReplayServiceCreateRequest,
        context: aio.ServicerContext[messages.ReplayServiceCreateRequest, messages.ReplayServiceCreateResponse],
    ) -> messages.ReplayServiceCreateResponse:
        how = conversions.creation(request)
        wanted = await self._requests.request(request.spec, single_step=request.single_step)
        execution = await self._create_of_few(wanted, how)
        if execution is None:
            execution = await in_transaction(self._pool, lambda connection: self._create(connection, wanted, how))
        self._bus.new_work(certain_lane(how.lane, most_steps=execution.invocation_count))
        self._bus.execution_changed(execution.id)
        return messages.ReplayServiceCreateResponse(
            execution=await self._reader.message(execution),
            plan_digest=str((execution.replay or {}).get("plan_digest", "")),
        )

    async def _check_objects(self, plan: MadePlan) -> None:
        if plan.objects:
            gone = of_missing(plan.objects, await self._objects.missing(one.key for one in plan.objects))
            if gone:
                raise refusal(f"the replay of {plan.source.name}", gone)

    async def _create_of_few(self, wanted: ReplayRequest, how: Creation) -> Execution | None:
        """Create a replay in one statement, without a transaction around its plan.

        Returns:
            None where it needs one: much is affected, the request brings code, or the source has changed meanwhile.
        """
        if wanted.code is not None:
            return None
        async with self._pool.acquire() as connection:
            try:
                plan = await plan_of_few(connection, wanted)
                return await self._created(connection, plan, how) if plan is not None else None
            except TO_BE_REPEATED:
                return None
            except DalsegnoError as refused:
                return await _carried_out(connection, how, refused)

    async def _create(self, connection: Connection, wanted: ReplayRequest, how: Creation) -> Execution:
        try:
            return await self._created(connection, await make_plan(connection, wanted), how)
        except DalsegnoError as refused:
            return await _carried_out(connection, how, refused)

    async def _created(self, connection: Connection, plan: MadePlan, how: Creation) -> Execution:
        request, project = plan.resolved.request, plan.source.project
        await self._check_objects(plan)
        replays.check_agreed(plan, how)
        await self._requests.store(request)
        if request.code is not None:
            rows = definition_rows(project, request.code.definitions)
            await self._definitions.record(connection, project, rows)
        return await replays.create_replay(connection, plan, how)

    async def _response(
        self, connection: Connection, plan: MadePlan, view: View, after: int, size: int
    ) -> messages.ReplayServicePlanResponse:
        await self._check_objects(plan)
        summary: PlanSummary = plan.summary
        page, following = await entries(connection, plan, view, after, size)
        roots, _ = await entries(connection, plan, View.ROOTS, 0, _LISTED)
        waits = (await entries(connection, plan, View.WAITS, 0, _LISTED))[0] if plan.resolved.is_flow else []
        return messages.ReplayServicePlanResponse(
            digest=summary.digest,
            source_execution_id=str(plan.source.id),
            root_count=summary.root_count,
            affected_count=summary.affected_count,
            reused_count=summary.reused_count,
            warnings=summary.warnings,
            waits=[conversions.entry_message(one) for one in waits],
            entries=[conversions.entry_message(one) for one in page],
            next_page_token=convert.page_token(str(following)) if following is not None else "",
            roots=[conversions.entry_message(one) for one in roots],
        )


async def _carried_out(connection: Connection, how: Creation, refused: DalsegnoError) -> Execution:
    """Return what a request created before: it is not refused because things have changed since."""
    existing = await replays.find_request(connection, how)
    if existing is None:
        raise refused
    return existing
