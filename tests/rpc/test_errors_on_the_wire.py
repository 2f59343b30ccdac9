"""Errors as a client that knows nothing of Python is told of them: over a bare channel, with bare messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from dalsegno.v1.execution_service_pb2 import ExecutionServiceExportRequest
from dalsegno.v1.replay_service_pb2 import ReplayServicePlanRequest, ReplaySpec, SelectorList
from dalsegno.v1.wait_service_pb2 import WaitServiceAnswerRequest
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import ask
from tests.rpc.serving import Serving, flow_header, json_value, pipeline_header, step, told

Asking = Callable[[Serving, Connection], Awaitable[object]]


async def no_such_execution(planner: Serving, _: Connection) -> object:
    return await planner.get(str(uuid4()))


async def a_running_source(planner: Serving, _: Connection) -> object:
    started = await planner.start(pipeline_header(), [step("load")])
    return await planner.replays.Plan(ReplayServicePlanRequest(spec=ReplaySpec(execution=started.id)))


async def wrong_overrides(planner: Serving, _: Connection) -> object:
    started = await planner.start(pipeline_header(), [step("load")])
    await planner.cancel(started.id)
    spec = ReplaySpec(execution=started.id, skip=SelectorList(), overrides={"load": json_value(1)})
    return await planner.replays.Plan(ReplayServicePlanRequest(spec=spec))


async def a_wrong_answer(planner: Serving, connection: Connection) -> object:
    started = await planner.start(flow_header())
    await ask(connection, started.id, 1, "count", schema='{"type": "integer"}')
    request = WaitServiceAnswerRequest(execution=started.id, value=json_value("many"))
    return await planner.waits.Answer(request)


async def an_unfinished_export(planner: Serving, _: Connection) -> object:
    started = await planner.start(flow_header())
    return [one async for one in planner.executions.Export(ExecutionServiceExportRequest(execution=started.id))]


@pytest.mark.semantics(
    "8", "and BadRequest/PreconditionFailure/ResourceInfo details, so that a client in any language can"
)
@pytest.mark.parametrize(
    ("asking", "code", "reason", "detail", "place"),
    [
        (
            no_such_execution,
            grpc.StatusCode.NOT_FOUND,
            "EXECUTION_NOT_FOUND",
            error_details_pb2.ResourceInfo,
            "execution",
        ),
        (
            a_running_source,
            grpc.StatusCode.FAILED_PRECONDITION,
            "SOURCE_RUNNING",
            error_details_pb2.PreconditionFailure,
            "execution",
        ),
        (
            wrong_overrides,
            grpc.StatusCode.INVALID_ARGUMENT,
            "UNKNOWN_OVERRIDE",
            error_details_pb2.BadRequest,
            'overrides["load"]',
        ),
        (a_wrong_answer, grpc.StatusCode.INVALID_ARGUMENT, "WAIT_VALIDATION", error_details_pb2.BadRequest, "value"),
        (
            an_unfinished_export,
            grpc.StatusCode.FAILED_PRECONDITION,
            "EXECUTION_NOT_FINISHED",
            error_details_pb2.PreconditionFailure,
            "",
        ),
    ],
)
async def test_errors_are_told_apart_without_their_text(
    planner: Serving,
    connection: Connection,
    asking: Asking,
    code: grpc.StatusCode,
    reason: str,
    detail: type,
    place: str,
) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await asking(planner, connection)
    found = told(error.value)  # which checks the domain
    assert (found.code, found.reason) == (code, reason)
    (entry,) = _entries(found.details[detail])
    assert place in entry


def _entries(detail: object) -> list[str]:
    match detail:
        case error_details_pb2.ResourceInfo():
            return [detail.resource_type]
        case error_details_pb2.BadRequest():
            return [one.field for one in detail.field_violations]
        case error_details_pb2.PreconditionFailure():
            return [one.subject for one in detail.violations]
    raise AssertionError(f"{detail!r} is no detail of an error")
