"""Replays of pipelines: which run is meant, and the graph that the code has today."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dalsegno.arguments import call_arguments, required_parameters, signature_of
from dalsegno.client.artifacts import Artifacts
from dalsegno.client.code_here import CodeHere, for_decorated
from dalsegno.client.executions import Execution
from dalsegno.client.given_values import KnownTypes, loaded
from dalsegno.client.identity import execution_text
from dalsegno.client.listing import list_request, listed
from dalsegno.client.replay_request import ReplayRequest, Wrong
from dalsegno.client.replay_specs import refusal
from dalsegno.client.starts import ended_well, reach_of, refuse_in_body, replay_source
from dalsegno.client.storage import Uploads
from dalsegno.client.warned import callers_level
from dalsegno.errors import DivergenceError, DivergenceKind, NotFoundError, Problem, UsageError
from dalsegno.tracing import Graph, trace

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach
    from dalsegno.decorators import Pipeline

_RUNS_AT_ONCE = 20
"""Fetched while the latest finished one is looked for."""


def replay_pipeline(
    pipeline: Pipeline[..., Any], pipeline_run: object, named: object, request: ReplayRequest, *, debug: bool = False
) -> Execution:
    """Replay a run of a pipeline with its code as it is here, and return the replay once it has ended well."""
    refuse_in_body(pipeline, "replay")
    if named is not None and _pipeline_name(named) != pipeline.name:
        raise UsageError(
            f"pipeline={_pipeline_name(named)!r} is another pipeline than {pipeline.name!r}, whose code is to be "
            "replayed; leave it out, or call replay() of that one",
            reason="OTHER_PIPELINE",
            fields={"pipeline": _pipeline_name(named)},
        )
    reach = reach_of(None)
    source = source_run(reach, pipeline_run, named, pipeline.name)
    here = for_decorated(reach, pipeline, pin=not debug)
    assert here.code is not None
    uploads = Uploads(reach.storage)
    graph = _todays_graph(reach, pipeline, source, request, here, uploads)
    here.code.steps.extend(graph.steps)
    here.code.shaping_inputs.extend(sorted(graph.shaped_by))
    if graph.result is not None:
        here.code.result.CopyFrom(graph.result)
    return ended_well(reach, replay_source(reach, source, request, here, uploads, debug=debug))


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
    if name is None:
        raise UsageError("say which run or which pipeline is meant", reason="NO_RUN")
    newer: Execution | None = None
    for run in listed(reach, list_request(reach, flow=name, page_size=_RUNS_AT_ONCE)):
        if run.single_step or run.debug or run.kind != "pipeline":
            continue
        if run.status.finished:
            if newer is not None:
                warnings.warn(
                    f"replaying run {run.name} of {name!r}, the latest that has finished; run {newer.name} "
                    f"is newer and {newer.status}",
                    stacklevel=callers_level(),
                )
            return reach.execution(run.exec_id)
        newer = newer or run
    raise NotFoundError(
        f"pipeline {name!r} has no finished run in project {reach.project!r}", fields={"pipeline": name}
    )


def _pipeline_name(pipeline: object) -> str:
    name = getattr(pipeline, "name", pipeline)
    if isinstance(name, str) and name.strip() and getattr(pipeline, "kind", "pipeline") == "pipeline":
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
    problems = _input_problems(pipeline, overrides, here.types)
    if problems:
        spec, wrong = request.draft(source.exec_id, reach.project, uploads, code=here.code, without_inputs=True)
        raise refusal(reach, spec, Wrong([*problems, *wrong.problems]))
    values = {name: value for name, value in source.inputs.items() if name not in overrides}
    values |= _loaded_overrides(reach, overrides, here.types)
    _check_signature(pipeline, source, values)
    args, kwargs = call_arguments(pipeline.function, values)
    pinned = bool(here.code is not None and here.code.definition.pinned_digest)
    return trace(pipeline, args, kwargs, pinned=pinned, payload_of=uploads.payload)


def _loaded_overrides(reach: Reach, overrides: Mapping[str, object], types: KnownTypes) -> dict[str, Any]:
    get = Artifacts(reach.connection, reach.storage).get
    return {name: loaded(value, get, admits_uuid=types.admits_uuid(name)) for name, value in overrides.items()}


def _input_problems(pipeline: Pipeline[..., Any], overrides: Mapping[str, object], types: KnownTypes) -> list[Problem]:
    parameters = list(signature_of(pipeline.function).parameters)
    problems = types.problems(overrides, "input_overrides")
    for name in types.unknown(overrides):
        close = difflib.get_close_matches(name, parameters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(parameters) or 'none'}"
        problems.append(
            Problem(f'input_overrides["{name}"]', f"pipeline {pipeline.name!r} has no such parameter{hint}")
        )
    return problems


def _check_signature(pipeline: Pipeline[..., Any], source: Execution, values: Mapping[str, object]) -> None:
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
