"""What ``--output json`` prints: one document for each kind of thing, with the same names everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dalsegno.cli.value_text import json_form
from dalsegno.cli.views import CallView, ExecutionView, Fate, PlannedView, PlanView, StepView, WaitView
from dalsegno.errors import Divergence, DivergentCall, Failure
from dalsegno.step_context import Progress

Document = dict[str, object]


def execution_document(execution: ExecutionView) -> Document:
    """Return an execution without its steps."""
    return {
        "exec_id": execution.exec_id,
        "name": execution.name,
        "project": execution.project,
        "flow": execution.flow,
        "kind": execution.kind,
        "status": str(execution.state),
        "original_exec_id": execution.original_exec_id,
        "created_at": _time(execution.created_at),
        "started_at": _time(execution.started_at),
        "finished_at": _time(execution.finished_at),
        "inputs": {name: json_form(value) for name, value in execution.inputs.items()},
        "overridden_inputs": list(execution.overridden_inputs),
        "result": json_form(execution.result),
        "failure": failure_document(execution.failure),
        "pending_reason": execution.pending_reason,
        "warnings": list(execution.warnings),
        "step_count": execution.step_count,
        "deadline": _time(execution.deadline),
        "lane": execution.lane.value,
        "priority": execution.priority,
    }


def step_document(step: StepView) -> Document:
    """Return one call of a step, or one wait."""
    return {
        "invocation_id": step.invocation_id,
        "name": step.name,
        "kind": "wait" if step.is_wait else "step",
        "status": str(step.state),
        "call_id": step.call_id,
        "original_call_id": step.original_call_id,
        "upstream": list(step.upstream),
        "started_at": _time(step.started_at),
        "finished_at": _time(step.finished_at),
        "seconds": step.seconds,
        "attempt": step.attempt,
        "output_overridden": step.output_overridden,
        "overridden_inputs": list(step.overridden_inputs),
        "stale_inputs": step.stale_inputs,
        "failure": failure_document(step.failure),
        "progress": _progress_document(step.progress),
    }


def call_document(call: CallView) -> Document:
    """Return one call with its outputs, each under the ID that a replay can be given, and its failed attempts."""
    return {
        **step_document(call.step),
        "outputs": [
            {
                "name": one.name,
                "artifact_id": one.artifact_id,
                "codec": one.codec,
                "size": one.size,
                "value": json_form(one.value),
            }
            for one in call.outputs
        ],
        "failed_attempts": [
            {
                "attempt": one.attempt,
                "executor": one.executor,
                "started_at": _time(one.started_at),
                "finished_at": _time(one.finished_at),
                "seconds": one.seconds,
                "failure": failure_document(one.failure),
            }
            for one in call.failed_attempts
        ],
    }


def wait_document(wait: WaitView) -> Document:
    """Return one wait."""
    return {
        "name": wait.name,
        "status": wait.state,
        "question": wait.question,
        "schema": wait.schema,
        "asked_at": _time(wait.asked_at),
        "deadline": _time(wait.deadline),
    }


def details_document(execution: ExecutionView, steps: Sequence[StepView], waits: Sequence[WaitView]) -> Document:
    """Return an execution with its steps and open waits; `step_count` says how many steps it has in all."""
    return {
        **execution_document(execution),
        "steps": [step_document(step) for step in steps],
        "waits": [wait_document(wait) for wait in waits],
    }


def graph_document(execution: ExecutionView, steps: Sequence[StepView]) -> Document:
    """Return the graph: nodes in the order of their calls, and an edge from each to what takes something from it."""
    return {
        "exec_id": execution.exec_id,
        "name": execution.name,
        "step_count": execution.step_count,
        "nodes": [
            {"invocation_id": step.invocation_id, "name": step.name, "status": str(step.state)} for step in steps
        ],
        "edges": [{"from": one, "to": step.invocation_id} for step in steps for one in step.upstream],
    }


def plan_document(plan: PlanView) -> Document:
    """Return a plan. Its counts are exact; ``steps`` has the first ones where there are very many."""
    return {
        "digest": plan.digest,
        "source": plan.source,
        "affected_count": plan.affected_count,
        "reused_count": plan.reused_count,
        "seconds_saved": round(plan.seconds_saved, 6),
        "waits": list(plan.waits),
        "warnings": list(plan.warnings),
        "complete": plan.is_complete,
        "steps": [_planned_document(step) for step in plan.steps],
    }


def _planned_document(step: PlannedView) -> Document:
    return {
        "invocation_id": step.invocation_id,
        "name": step.name,
        "kind": "wait" if step.is_wait else "step",
        "reruns": step.fate is not Fate.REUSED,
        "root": step.fate is Fate.ROOT,
        "reasons": list(step.reasons),
        "call_id": step.call_id,
        "recorded_seconds": step.seconds,
        "output_overridden": step.output_overridden,
    }


def failure_document(failure: Failure | None) -> Document | None:
    """Return a failure, with its traceback."""
    if failure is None:
        return None
    return {
        "origin": str(failure.origin),
        "message": failure.message,
        "exception_type": failure.exception_type,
        "traceback": failure.traceback,
        "invocation_id": failure.invocation_id,
        "attempt": failure.attempt,
        "reason": failure.reason,
        "divergence": _divergence_document(failure.divergence),
    }


def _divergence_document(divergence: Divergence | None) -> Document | None:
    if divergence is None:
        return None
    return {
        "kind": str(divergence.kind),
        "position": divergence.position,
        "expected": _divergent_call_document(divergence.expected),
        "actual": _divergent_call_document(divergence.actual),
        "inputs": list(divergence.inputs),
        "before": [_divergent_call_document(call) for call in divergence.before],
        "following": [_divergent_call_document(call) for call in divergence.following],
    }


def _divergent_call_document(call: DivergentCall | None) -> Document | None:
    if call is None:
        return None
    return {
        "invocation_id": call.invocation_id,
        "name": call.name,
        "kind": "wait" if call.is_wait else "step",
        "position": call.position,
        "digests": dict(call.digests),
    }


def _progress_document(progress: Progress | None) -> Document | None:
    if progress is None:
        return None
    return {"done": progress.done, "total": progress.total, "message": progress.message, "at": _time(progress.at)}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
