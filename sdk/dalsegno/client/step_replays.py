"""Replays of single steps: which invocation is meant, and its inputs with what replaces them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dalsegno.arguments import signature_of
from dalsegno.client.call_ids import CallId, listed_calls
from dalsegno.client.checkpoints import Checkpoint
from dalsegno.client.code_here import CodeHere, for_decorated
from dalsegno.client.given_values import VALUE_KEY, require_names
from dalsegno.client.pipeline_replays import source_run
from dalsegno.client.replay_request import ReplayRequest
from dalsegno.client.replays import create_replay
from dalsegno.client.starts import ended_well, reach_of
from dalsegno.client.storage import Uploads
from dalsegno.durable import refuse_at_import, refuse_inside
from dalsegno.errors import NotFoundError, Problem, StateError, UsageError

if TYPE_CHECKING:
    from dalsegno.client.executions import Execution
    from dalsegno.client.reach import Reach
    from dalsegno.decorators import Step


def replay_step(
    step: Step[..., Any],
    *,
    step_run_id: object,
    pipeline_run: object,
    pipeline: object,
    invocation_id: str | None,
    input_overrides: Mapping[str, object] | None,
    debug: bool = False,
) -> Execution:
    """Run one call of a step again with the step's code as it is here, and return the execution once it has ended."""
    refuse_at_import(f"step {step.name!r} cannot replay")
    refuse_inside(f"step {step.name!r} cannot replay", "replay it from a script")
    reach = reach_of(None)
    source, checkpoint = _meant(reach, step, step_run_id, pipeline_run, pipeline, invocation_id)
    here = for_decorated(reach, step, pin=not debug)
    assert here.code is not None
    overrides = _checked(step, require_names(input_overrides, "input_overrides"), here)
    request = ReplayRequest(
        from_=f"invocation:{checkpoint.invocation_id}",
        step_input_overrides={checkpoint.invocation_id: overrides} if overrides else None,
    )
    uploads = Uploads(reach.storage)

    def create() -> Execution:
        return create_replay(reach, source.exec_id, request, here, uploads, single_step=True, debug=debug)

    if not debug:
        return ended_well(reach, create())
    from dalsegno.client.debugging import run_debugged

    return ended_well(reach, run_debugged(reach, here.code, create))


def _meant(
    reach: Reach,
    step: Step[..., Any],
    step_run_id: object,
    pipeline_run: object,
    pipeline: object,
    invocation_id: str | None,
) -> tuple[Execution, Checkpoint]:
    if step_run_id is not None:
        return _by_call(reach, step, step_run_id, pipeline_run, pipeline, invocation_id)
    if pipeline_run is None and pipeline is None:
        raise UsageError(
            f"say which call of {step.name!r} is meant: step_run_id=, or pipeline_run= or pipeline= with "
            "invocation_id=",
            reason="NO_STEP_RUN",
        )
    source = source_run(reach, pipeline_run, pipeline, None)
    if invocation_id is not None:
        return source, _of_step(step, source.checkpoints[invocation_id], f"invocation_id={invocation_id!r}")
    return source, _only_call(step, source)


def _by_call(
    reach: Reach,
    step: Step[..., Any],
    step_run_id: object,
    pipeline_run: object,
    pipeline: object,
    invocation_id: str | None,
) -> tuple[Execution, Checkpoint]:
    call = CallId.given(step_run_id)
    if pipeline_run is None:
        source = _run_of(reach, call)
        # A pipeline that is named as well only has to be that of the run, which need not be its latest.
        if pipeline is not None:
            source = source_run(reach, source, pipeline, None)
        checkpoint = call.among(source, step.name)
        if checkpoint is None:
            raise call.not_found()
    else:
        source = source_run(reach, pipeline_run, pipeline, None)
        checkpoint = call.among(source, step.name)
        if checkpoint is None:
            raise call.disagrees_with(source)
    if invocation_id is not None and checkpoint.invocation_id != invocation_id:
        raise UsageError(
            f"step_run_id {call} is invocation {checkpoint.invocation_id!r}, not {invocation_id!r}; give one of "
            "the two",
            reason="DISAGREEING",
            fields={"step_run_id": str(call), "invocation_id": invocation_id},
        )
    return source, _of_step(step, checkpoint, f"step_run_id={call}")


def _run_of(reach: Reach, call: CallId) -> Execution:
    try:
        source = reach.execution(call.execution)
    except NotFoundError:
        raise call.not_found() from None
    if not call.is_of(source):  # a run name that looks like part of an ID
        raise call.not_found()
    return source


def _only_call(step: Step[..., Any], source: Execution) -> Checkpoint:
    calls = [one for one in source.checkpoints if one.name == step.name]
    if len(calls) == 1:
        return calls[0]
    if not calls:
        raise NotFoundError(
            f"run {source.name} ({source.exec_id}) has no call of step {step.name!r}", fields={"step": step.name}
        )
    raise StateError(
        f"run {source.name} has {len(calls)} calls of {step.name!r}; say which with invocation_id=: "
        f"{listed_calls(calls)}",
        reason="AMBIGUOUS_STEP_RUN",
        fields={"step": step.name, "execution": source.exec_id},
    )


def _of_step(step: Step[..., Any], checkpoint: Checkpoint, given: str) -> Checkpoint:
    if checkpoint.name != step.name:
        raise UsageError(
            f"{given} is a call of step {checkpoint.name!r}, not of {step.name!r}",
            reason="OTHER_STEP",
            fields={"step": step.name, "actual": checkpoint.name},
        )
    return checkpoint


def _checked(step: Step[..., Any], overrides: Mapping[str, object], here: CodeHere) -> dict[str, object]:
    parameters = list(signature_of(step.function).parameters)
    problems = here.types.problems(overrides, "input_overrides")
    for name in here.types.unknown(overrides):
        close = difflib.get_close_matches(name, parameters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(parameters) or 'none'}"
        problems.append(Problem(f'input_overrides["{name}"]', f"step {step.name!r} has no such input{hint}"))
    if problems:
        raise UsageError("the replay cannot be made", reason="INVALID_REPLAY", problems=problems)
    return {name: _as_given(value, here.types.admits_uuid(name)) for name, value in overrides.items()}


def _as_given(value: object, admits_uuid: bool) -> object:
    return {VALUE_KEY: value} if isinstance(value, UUID) and admits_uuid else value
