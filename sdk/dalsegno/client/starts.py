"""Flows and pipelines of this process: started, and replayed with the code that they have here."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dalsegno.arguments import bind_arguments, signature_of
from dalsegno.client.code_here import CodeHere, definitions, for_decorated, joined
from dalsegno.client.connection import new_request_id
from dalsegno.client.executions import Execution
from dalsegno.client.given_values import KnownTypes, loaded
from dalsegno.client.handles import ExecutionHandle
from dalsegno.client.identity import execution_text
from dalsegno.client.replay_request import ReplayRequest
from dalsegno.client.replays import create_replay
from dalsegno.client.storage import Uploads
from dalsegno.definitions import definition_ref, kind_of
from dalsegno.durable import refuse_inside
from dalsegno.errors import DivergenceError, DivergenceKind, NotFoundError, Problem, UsageError
from dalsegno.tracing import Graph, trace
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceStartRequest,
    StartHeader,
    StepSpec,
    StepSpecs,
)
from dalsegno.v1.value_pb2 import Value
from dalsegno.values import encode

if TYPE_CHECKING:
    from dalsegno.client import Client
    from dalsegno.client.reach import Reach
    from dalsegno.decorators import Flow, Pipeline

STEP_BYTES_IN_MESSAGE = 1024 * 1024


def start_flow(
    flow: Flow[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object], client: Client | None = None
) -> ExecutionHandle[Any]:
    """Start an execution of a flow."""
    _refuse_inside(flow, "run")
    reach = _reach(client)
    arguments = bind_arguments(flow.function, args, kwargs)
    uploads = Uploads(reach.storage)
    inputs = {
        name: Value(payload=uploads.payload(encode(value), f"argument {name!r} of {flow.name}"))
        for name, value in arguments.items()
    }
    header = _header(reach, flow, inputs)
    uploads.send()
    return ExecutionHandle(_start(reach, header, ()), reach)


async def flow_value_async(flow: Flow[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
    """Run an ``async def`` flow and return its value, without blocking the caller's event loop."""
    handle = await asyncio.to_thread(start_flow, flow, args, kwargs)
    return await asyncio.to_thread(handle.wait)


def run_pipeline(pipeline: Pipeline[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object]) -> Execution:
    """Trace a pipeline, run it, and return the execution once it has ended well."""
    _refuse_inside(pipeline, "run")
    reach = _reach(None)
    return _ended_well(reach, start_pipeline(pipeline, args, kwargs, reach))


def start_pipeline(
    pipeline: Pipeline[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object], reach: Reach
) -> Execution:
    """Trace a pipeline and start it."""
    uploads = Uploads(reach.storage)
    pinned = joined(reach, pipeline)
    graph = trace(pipeline, args, kwargs, pinned=pinned, payload_of=uploads.payload)
    inputs = {name: Value(payload=uploads.payload(value)) for name, value in graph.inputs.items()}
    header = _header(reach, pipeline, inputs, graph)
    uploads.send()
    return _start(reach, header, graph.steps)


def replay_flow(flow: Flow[..., Any], exec_id: object, request: ReplayRequest) -> ExecutionHandle[Any]:
    """Replay an execution of a flow with its code as it is here."""
    _refuse_inside(flow, "replay")
    reach = _reach(None)
    source = reach.execution(exec_id)
    if source.flow != flow.name or source.kind != flow.kind:
        raise UsageError(
            f"execution {source.exec_id} is of {source.kind} {source.flow!r}, not of flow {flow.name!r}; "
            "replay it with Client().executions.replay()",
            reason="OTHER_FLOW",
            fields={"execution": source.exec_id, "flow": source.flow},
        )
    here = for_decorated(reach, flow)
    return ExecutionHandle(_replay(reach, source, request, here), reach)


def replay_pipeline(
    pipeline: Pipeline[..., Any], pipeline_run: object, named: object, request: ReplayRequest
) -> Execution:
    """Replay a run of a pipeline with its code as it is here, and return the replay once it has ended well."""
    _refuse_inside(pipeline, "replay")
    reach = _reach(None)
    source = source_run(reach, pipeline_run, named, pipeline.name)
    here = for_decorated(reach, pipeline)
    assert here.code is not None
    uploads = Uploads(reach.storage)
    graph = _todays_graph(reach, pipeline, source, request, here, uploads)
    here.code.steps.extend(graph.steps)
    if graph.result is not None:
        here.code.result.CopyFrom(graph.result)
    return _ended_well(reach, _replay(reach, source, request, here, uploads))


def source_run(reach: Reach, pipeline_run: object, pipeline: object, own_name: str | None) -> Execution:
    """Return the run that a replay of a pipeline means.

    Args:
        reach: The planner.
        pipeline_run: A run; it wins where it is given.
        pipeline: A pipeline, whose latest finished run is meant.
        own_name: The pipeline that is meant where neither is given.

    Raises:
        UsageError: If the run is of another pipeline.
        NotFoundError: If there is no finished run.
    """
    name = own_name if pipeline is None else _pipeline_name(pipeline)
    if pipeline_run is None:
        return _latest_finished(reach, name)
    source = reach.execution(pipeline_run)
    if source.kind != "pipeline":
        raise UsageError(
            f"{execution_text(pipeline_run)} is a run of flow {source.flow!r}; replay it with the flow's own replay()",
            reason="NOT_A_PIPELINE",
        )
    if name is not None and source.flow != name:
        raise UsageError(
            f"run {source.name} ({source.exec_id}) is of pipeline {source.flow!r}, not of {name!r}; give "
            "the run of one, or pipeline= with its name",
            reason="OTHER_PIPELINE",
            fields={"execution": source.exec_id, "pipeline": source.flow},
        )
    return source


def _latest_finished(reach: Reach, name: str | None) -> Execution:
    from dalsegno.client.execution_api import Executions

    if name is None:
        raise UsageError("say which run or which pipeline is meant", reason="NO_RUN")
    newer: Execution | None = None
    for run in Executions(reach).list(flow=name, page_size=20):
        if run.single_step or run.debug or run.kind != "pipeline":
            continue
        if run.status.finished:
            if newer is not None:
                warnings.warn(
                    f"replaying run {run.name} of {name!r}, the latest that has finished; run {newer.name} "
                    f"is newer and {newer.status}",
                    stacklevel=5,
                )
            return reach.execution(run.exec_id)
        newer = newer or run
    raise NotFoundError(
        f"pipeline {name!r} has no finished run in project {reach.project!r}", fields={"pipeline": name}
    )


def _pipeline_name(pipeline: object) -> str:
    name = getattr(pipeline, "name", pipeline)
    if isinstance(name, str) and name.strip():
        return name
    raise UsageError(f"pipeline={pipeline!r}: give a pipeline or its name", reason="NO_PIPELINE")


def _todays_graph(
    reach: Reach,
    pipeline: Pipeline[..., Any],
    source: Execution,
    request: ReplayRequest,
    here: CodeHere,
    uploads: Uploads,
) -> Graph:
    overrides = request.all_inputs()
    _check_inputs(pipeline, overrides, here.types)
    values = {name: value for name, value in source.inputs.items() if name not in overrides}
    values |= _loaded_overrides(reach, overrides, here.types)
    _check_signature(pipeline, source, values)
    from dalsegno.arguments import call_arguments

    args, kwargs = call_arguments(pipeline.function, values)
    pinned = bool(here.code is not None and here.code.definition.pinned_digest)
    return trace(pipeline, args, kwargs, pinned=pinned, payload_of=uploads.payload)


def _loaded_overrides(reach: Reach, overrides: Mapping[str, object], types: KnownTypes) -> dict[str, Any]:
    from dalsegno.client.artifacts import Artifacts

    get = Artifacts(reach.connection, reach.storage).get
    return {name: loaded(value, get, admits_uuid=types.admits_uuid(name)) for name, value in overrides.items()}


def _check_inputs(pipeline: Pipeline[..., Any], overrides: Mapping[str, object], types: KnownTypes) -> None:
    import difflib

    parameters = list(signature_of(pipeline.function).parameters)
    problems = types.problems(overrides, "input_overrides")
    for name in types.unknown(overrides):
        close = difflib.get_close_matches(name, parameters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(parameters) or 'none'}"
        problems.append(
            Problem(f'input_overrides["{name}"]', f"pipeline {pipeline.name!r} has no such parameter{hint}")
        )
    if problems:
        raise UsageError("the replay cannot be made", reason="INVALID_REPLAY", problems=problems)


def _check_signature(pipeline: Pipeline[..., Any], source: Execution, values: Mapping[str, object]) -> None:
    from dalsegno.arguments import required_parameters

    parameters = signature_of(pipeline.function).parameters
    problems = [Problem(name, "is recorded, and is no parameter any more") for name in values if name not in parameters]
    problems += [
        Problem(name, "is a new parameter without a default, and was not recorded; give it in input_overrides")
        for name in required_parameters(pipeline.function)
        if name not in values
    ]
    if problems:
        raise DivergenceError(
            f"pipeline {pipeline.name!r} takes other parameters than run {source.name} ({source.exec_id}) recorded",
            kind=DivergenceKind.GRAPH_CHANGED,
            problems=problems,
        )


def _replay(
    reach: Reach,
    source: Execution,
    request: ReplayRequest,
    here: CodeHere,
    uploads: Uploads | None = None,
) -> Execution:
    uploads = uploads or Uploads(reach.storage)
    spec = request.spec(source.exec_id, reach.project, uploads, types=here.types, code=here.code)
    return create_replay(reach, spec, uploads, expect_plan=request.expect_plan)


def _header(
    reach: Reach,
    decorated: Flow[..., Any] | Pipeline[..., Any],
    inputs: Mapping[str, Value],
    graph: Graph | None = None,
) -> StartHeader:
    return StartHeader(
        project=reach.project,
        definition=definition_ref(decorated, pinned=joined(reach, decorated)),
        kind=kind_of(decorated),
        code_digest=decorated.digest,
        inputs=inputs,
        request_id=new_request_id(),
        definitions=definitions([decorated, *(graph.definitions if graph is not None else ())]),
        result=graph.result if graph is not None else None,
    )


def _start(reach: Reach, header: StartHeader, steps: Iterable[StepSpec]) -> Execution:
    def messages() -> Iterator[ExecutionServiceStartRequest]:
        yield ExecutionServiceStartRequest(header=header)
        for batch in _batches(steps):
            yield ExecutionServiceStartRequest(steps=StepSpecs(steps=batch))

    response = reach.connection.send_stream(lambda stubs: stubs.executions.Start, messages)
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


def _ended_well(reach: Reach, execution: Execution) -> Execution:
    finished = reach.finished(execution)
    finished.raise_failure()
    return finished


def _refuse_inside(decorated: Flow[..., Any] | Pipeline[..., Any], verb: str) -> None:
    refuse_inside(
        f"{decorated.kind} {decorated.name!r} cannot {verb}",
        "an execution does not start others; call its steps here, or start it from a script",
    )


def _reach(client: Client | None) -> Reach:
    from dalsegno.client import shared_client

    return (client or shared_client()).reach
