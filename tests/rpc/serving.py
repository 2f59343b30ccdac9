"""A planner in this process, and what its errors say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from dalsegno.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_FLOW, DEFINITION_KIND_PIPELINE, DefinitionRef, StepOptions
from dalsegno.v1.execution_pb2 import Execution, Invocation, InvocationState
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceCancelRequest,
    ExecutionServiceGetRequest,
    ExecutionServiceListInvocationsRequest,
    ExecutionServiceRetryRequest,
    ExecutionServiceStartRequest,
    ExecutionServiceWatchRequest,
    StartHeader,
    StepSpec,
    StepSpecs,
)
from dalsegno.v1.execution_service_pb2_grpc import ExecutionServiceStub
from dalsegno.v1.log_service_pb2_grpc import LogServiceStub
from dalsegno.v1.replay_service_pb2 import ReplaySpec, SelectorList
from dalsegno.v1.replay_service_pb2_grpc import ReplayServiceStub
from dalsegno.v1.value_pb2 import Binding, Inputs, OutputRef, Payload, Value
from dalsegno.v1.wait_service_pb2_grpc import WaitServiceStub
from dalsegno_planner.server import Planner
from dalsegno_planner.settings import Settings

if TYPE_CHECKING:
    # Known to the type checker only: at run time one stub serves both kinds of channels.
    from dalsegno.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub
    from dalsegno.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub
    from dalsegno.v1.log_service_pb2_grpc import LogServiceAsyncStub
    from dalsegno.v1.replay_service_pb2_grpc import ReplayServiceAsyncStub
    from dalsegno.v1.wait_service_pb2_grpc import WaitServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Serving:
    """A planner, and clients of its services."""

    planner: Planner
    settings: Settings
    channel: aio.Channel
    executions: ExecutionServiceAsyncStub
    replays: ReplayServiceAsyncStub
    waits: WaitServiceAsyncStub
    artifacts: ArtifactServiceAsyncStub
    logs: LogServiceAsyncStub

    async def start(self, header: StartHeader, *batches: Iterable[StepSpec]) -> Execution:
        """Start an execution."""
        requests = [ExecutionServiceStartRequest(header=header)]
        requests += [ExecutionServiceStartRequest(steps=StepSpecs(steps=steps)) for steps in batches]
        return (await self.executions.Start(iter(requests))).execution

    async def get(self, execution: str) -> Execution:
        """Return an execution."""
        return (await self.executions.Get(ExecutionServiceGetRequest(execution=execution))).execution

    async def cancel(self, execution: str, reason: str = "") -> Execution:
        """Cancel an execution, and return it."""
        request = ExecutionServiceCancelRequest(execution=execution, reason=reason)
        return (await self.executions.Cancel(request)).execution

    async def retry(self, execution: str, **fields: Any) -> Execution:
        """Retry an execution, and return it."""
        request = ExecutionServiceRetryRequest(execution=execution, **fields)
        return (await self.executions.Retry(request)).execution

    async def invocations(self, execution: str) -> dict[str, Invocation]:
        """Return the invocations of an execution, by their IDs."""
        request = ExecutionServiceListInvocationsRequest(execution=execution)
        page = await self.executions.ListInvocations(request)
        return {one.invocation_id: one for one in page.invocations}

    async def states(self, execution: str) -> dict[str, str]:
        """Return the states of an execution's invocations, by their IDs."""
        found = await self.invocations(execution)
        return {
            name: InvocationState.Name(one.state).removeprefix("INVOCATION_STATE_").lower()
            for name, one in found.items()
        }

    async def end_of(self, execution: str) -> Execution:
        """Wait until an execution ends, and return it."""
        request = ExecutionServiceWatchRequest(execution=execution, execution_only=True)
        told = [one.execution async for one in self.executions.Watch(request)]
        return told[-1]


@asynccontextmanager
async def serving(database: str, folder: Path, **settings: Any) -> AsyncIterator[Serving]:
    """Run a planner on a free port of this machine."""
    chosen = {"listen": "127.0.0.1:0", "object_store": (folder / "objects").as_uri(), "stop_grace": 1.0, **settings}
    planner = Planner(Settings(database_url=database, **chosen))
    try:
        await planner.start()
        await planner.connect()
        async with aio.insecure_channel(planner.address) as channel:
            yield _clients(planner, channel)
    finally:
        await planner.stop()


def _clients(planner: Planner, channel: aio.Channel) -> Serving:
    return Serving(
        planner,
        planner.settings,
        channel,
        ExecutionServiceStub(channel),
        ReplayServiceStub(channel),
        WaitServiceStub(channel),
        ArtifactServiceStub(channel),
        LogServiceStub(channel),
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What a client is told of an error."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    details: Mapping[type[Message], Any]

    @property
    def fields(self) -> list[str]:
        """The fields of a request that are wrong."""
        bad = self.details[error_details_pb2.BadRequest]
        return [violation.field for violation in bad.field_violations]

    @property
    def descriptions(self) -> str:
        """What is wrong with them."""
        bad = self.details[error_details_pb2.BadRequest]
        return "\n".join(violation.description for violation in bad.field_violations)


def told(error: aio.AioRpcError) -> Told:
    """Read an error as a client in any language would: from its status and its details."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    details: dict[type[Message], Any] = {}
    for packed in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.PreconditionFailure,
            error_details_pb2.ResourceInfo,
        ):
            if packed.Is(kind.DESCRIPTOR):
                details[kind] = kind.FromString(packed.value)
    info = details[error_details_pb2.ErrorInfo]
    assert info.domain == "dalsegno"
    assert status.code == error.code().value[0]
    return Told(error.code(), status.message, info.reason, dict(info.metadata), details)


def flow_header(**fields: Any) -> StartHeader:
    """The header of a flow that could be started."""
    definition = DefinitionRef(module="kitchens", name="content")
    return StartHeader(**{"definition": definition, "kind": DEFINITION_KIND_FLOW, **fields})


def pipeline_header(**fields: Any) -> StartHeader:
    """The header of a pipeline that could be started."""
    definition = DefinitionRef(module="training", name="training")
    return StartHeader(**{"definition": definition, "kind": DEFINITION_KIND_PIPELINE, **fields})


def step(invocation_id: str, *, after: Iterable[int] = (), outputs: Iterable[str] = (), **inputs: Binding) -> StepSpec:
    """A step of a pipeline whose code has the name of the invocation."""
    return StepSpec(
        invocation_id=invocation_id,
        definition=DefinitionRef(module="training", name=invocation_id.partition("_")[0]),
        inputs=Inputs(bindings=inputs),
        after=after,
        options=StepOptions(outputs=outputs),
    )


def replay_from(execution: str, *selectors: str, **more: Any) -> ReplaySpec:
    """A replay from some steps."""
    named: dict[str, Any] = {"from": SelectorList(selectors=selectors)}  # a word of Python's own
    return ReplaySpec(execution=execution, **named, **more)


def output(number: int, name: str = "output") -> Binding:
    """A binding to an output."""
    return Binding(output=OutputRef(number=number, output=name))


def plain(value: object) -> Binding:
    """A binding to a value."""
    return Binding(value=json_payload(value))


def json_payload(value: object) -> Payload:
    """A payload as a client in another language writes it, without a digest."""
    return Payload(codec="json", inline=json.dumps(value).encode())


def json_value(value: object) -> Value:
    """A value as JSON text."""
    return Value(json=json.dumps(value))
