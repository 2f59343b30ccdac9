"""Flows and pipelines of this process: started, and replayed with the code that they have here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dalsegno.arguments import bind_arguments
from dalsegno.client import left_behind
from dalsegno.client.code_here import CodeHere, definitions, for_decorated, joined
from dalsegno.client.connection import new_request_id
from dalsegno.client.executions import Execution
from dalsegno.client.handles import ExecutionHandle
from dalsegno.client.lanes import lane_message
from dalsegno.client.replay_request import ReplayRequest
from dalsegno.client.replays import create_replay
from dalsegno.client.storage import Uploads
from dalsegno.client.warned import warn_of
from dalsegno.definitions import definition_ref, kind_of
from dalsegno.durable import refuse_at_import, refuse_inside
from dalsegno.errors import UsageError
from dalsegno.lanes import USUAL, Urgency
from dalsegno.runnables import Flow, FlowRun, Pipeline, PipelineRun
from dalsegno.timeouts import duration
from dalsegno.tracing import Graph, trace
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceStartRequest,
    StartHeader,
    StepSpec,
    StepSpecs,
)
from dalsegno.v1.value_pb2 import Value

if TYPE_CHECKING:
    from dalsegno.client import Client
    from dalsegno.client.reach import Reach

STEP_BYTES_IN_MESSAGE = 1024 * 1024


def start_flow(
    flow: Flow[..., Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    client: Client | None = None,
    name: str | None = None,
    timeout: float | None = None,
    urgency: Urgency = USUAL,
) -> ExecutionHandle[Any]:
    """Start an execution of a flow, under a run name, with a timeout and an urgency of its own where given."""
    refuse_in_body(flow, "run")
    reach = reach_of(client)
    return ExecutionHandle(start_flow_on(reach, flow, args, kwargs, name, timeout, urgency), reach)


def start_on(reach: Reach, runnable: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Execution:
    """Start an execution of a flow or pipeline, or of one with options, on a planner.

    Raises:
        UsageError: If it is neither.
    """
    match runnable:
        case Flow():
            return start_flow_on(reach, runnable, args, kwargs)
        case FlowRun():
            return start_flow_on(reach, runnable.flow, args, kwargs, *runnable.options)
        case Pipeline():
            return start_pipeline(runnable, args, kwargs, reach)
        case PipelineRun():
            return start_pipeline(runnable.pipeline, args, kwargs, reach, *runnable.options)
    raise UsageError(
        f"{runnable!r} is neither a flow nor a pipeline; decorate the function with @flow or @pipeline",
        reason="NOT_RUNNABLE",
    )


def start_flow_on(
    reach: Reach,
    flow: Flow[..., Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    name: str | None = None,
    timeout: float | None = None,
    urgency: Urgency = USUAL,
) -> Execution:
    """Start an execution of a flow on a planner."""
    refuse_in_body(flow, "run")
    arguments = bind_arguments(flow.function, args, kwargs)
    uploads = Uploads(reach.storage)
    inputs = {
        name: Value(payload=uploads.encoded(value, f"argument {name!r} of flow {flow.name!r}"))
        for name, value in arguments.items()
    }
    header = _header(reach, flow, inputs, name, timeout, urgency)
    uploads.send()
    return _start(reach, header, ())


def flow_value_async(
    flow: Flow[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Coroutine[Any, Any, object]:
    """Return a coroutine that runs an ``async def`` flow for its value, without blocking the caller's event loop."""
    refuse_in_body(flow, "run")

    async def value() -> object:
        handle = await asyncio.to_thread(start_flow, flow, args, kwargs)
        return await asyncio.to_thread(handle.wait)

    return value()


def run_pipeline(
    pipeline: Pipeline[..., Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    name: str | None = None,
    timeout: float | None = None,
    urgency: Urgency = USUAL,
) -> Execution:
    """Trace a pipeline, run it, and return the execution once it has ended well."""
    refuse_in_body(pipeline, "run")
    reach = reach_of(None)
    return ended_well(reach, start_pipeline(pipeline, args, kwargs, reach, name, timeout, urgency))


def start_pipeline(
    pipeline: Pipeline[..., Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    reach: Reach,
    name: str | None = None,
    timeout: float | None = None,
    urgency: Urgency = USUAL,
) -> Execution:
    """Trace a pipeline and start it, under a run name, with a timeout and an urgency of its own where given."""
    refuse_in_body(pipeline, "run")
    uploads = Uploads(reach.storage)
    pinned = joined(reach, pipeline)
    graph = trace(pipeline, args, kwargs, pinned=pinned, payload_of=uploads.payload)
    inputs = {
        name: Value(payload=uploads.payload(value, f"argument {name!r} of pipeline {pipeline.name!r}"))
        for name, value in graph.inputs.items()
    }
    header = _header(reach, pipeline, inputs, name, timeout, urgency, graph)
    uploads.send()
    return _start(reach, header, graph.steps)


def replay_flow(
    flow: Flow[..., Any], exec_id: object, request: ReplayRequest, *, debug: bool = False
) -> ExecutionHandle[Any]:
    """Replay an execution of a flow with its code as it is here; one that is debugged has ended on return."""
    refuse_in_body(flow, "replay")
    reach = reach_of(None)
    source = reach.execution(exec_id)
    if source.flow != flow.name or source.kind != flow.kind:
        raise UsageError(
            f"execution {source.exec_id} is of {source.kind} {source.flow!r}, not of flow {flow.name!r}; "
            "replay it with Client().executions.replay()",
            reason="OTHER_FLOW",
            fields={"execution": source.exec_id, "flow": source.flow},
        )
    here = for_decorated(reach, flow, pin=not debug)
    return ExecutionHandle(replay_source(reach, source, request, here, debug=debug), reach)


def replay_source(
    reach: Reach,
    source: Execution,
    request: ReplayRequest,
    here: CodeHere,
    uploads: Uploads | None = None,
    *,
    debug: bool = False,
) -> Execution:
    """Replay an execution with the code as it is here; return it at once, or once it has ended where it is debugged."""
    given = uploads or Uploads(reach.storage)

    def create() -> Execution:
        return create_replay(reach, source.exec_id, request, here, given, debug=debug)

    if not debug:
        return create()
    from dalsegno.client.debugging import run_debugged

    assert here.code is not None
    return run_debugged(reach, here.code, create)


def _header(
    reach: Reach,
    decorated: Flow[..., Any] | Pipeline[..., Any],
    inputs: Mapping[str, Value],
    name: str | None,
    timeout: float | None,
    urgency: Urgency,
    graph: Graph | None = None,
) -> StartHeader:
    return StartHeader(
        project=reach.project,
        definition=definition_ref(decorated, pinned=joined(reach, decorated)),
        kind=kind_of(decorated),
        code_digest=decorated.digest,
        inputs=inputs,
        name=name or "",
        request_id=new_request_id(),
        definitions=definitions([decorated, *(graph.definitions if graph is not None else ())]),
        result=graph.result if graph is not None else None,
        shaping_inputs=sorted(graph.shaped_by) if graph is not None else (),
        timeout=duration(decorated.timeout if timeout is None else timeout),
        lane=lane_message(urgency.lane),
        priority=urgency.priority,
    )


def _start(reach: Reach, header: StartHeader, steps: Iterable[StepSpec]) -> Execution:
    def messages() -> Iterator[ExecutionServiceStartRequest]:
        yield ExecutionServiceStartRequest(header=header)
        for batch in _batches(steps):
            yield ExecutionServiceStartRequest(steps=StepSpecs(steps=batch))

    response = reach.connection.send_stream(lambda stubs: stubs.executions.Start, messages)
    if header.definition.pinned_digest:
        left_behind.remember(reach.connection, response.execution.id)
    return Execution(response.execution, reach)


def _batches(steps: Iterable[StepSpec]) -> Iterator[list[StepSpec]]:
    batch: list[StepSpec] = []
    size = 0
    for step in steps:
        step_size = step.ByteSize()
        if batch and size + step_size > STEP_BYTES_IN_MESSAGE:
            yield batch
            batch, size = [], 0
        batch.append(step)
        size += step_size
    if batch:
        yield batch


def ended_well(reach: Reach, execution: Execution) -> Execution:
    """Wait for the end of an execution, and return it where it ended well.

    Raises:
        ExecutionError: If it did not; `UserCodeError` and `DivergenceError` among these.
    """
    with left_behind.waiting_for(execution.exec_id, execution.name):
        finished = reach.finished(execution)
    finished.raise_failure()
    warn_of(finished)
    return finished


def refuse_in_body(decorated: Flow[..., Any] | Pipeline[..., Any], verb: str) -> None:
    """Refuse to start or replay anything inside a body or a step, and while code is only imported.

    Raises:
        ContextError: Inside either of them, or at import.
    """
    refuse_at_import(f"{decorated.kind} {decorated.name!r} cannot {verb}")
    refuse_inside(
        f"{decorated.kind} {decorated.name!r} cannot {verb}",
        "an execution does not start others; call its steps here, or start it from a script",
    )


def reach_of(client: Client | None) -> Reach:
    """Return the planner of a client; of the one that the environment says where none is given."""
    from dalsegno.client import shared_client

    return (client or shared_client()).reach
