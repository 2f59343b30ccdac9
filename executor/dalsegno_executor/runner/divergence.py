"""A divergence as it is reported: kind, place, both sides, and a sentence."""

from __future__ import annotations

from typing import assert_never

from dalsegno.errors import DivergenceKind
from dalsegno.v1 import execution_pb2
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_DIVERGENCE, DivergentCall, Failure
from dalsegno_executor.runner.fingerprints import Inputs
from dalsegno_executor.runner.matching import CallKind, Divergence, Made, Recorded


def divergence_failure(divergence: Divergence) -> Failure:
    """Return the failure of a body that has diverged."""
    message = execution_pb2.Divergence(
        kind=execution_pb2.DivergenceKind.Value(f"DIVERGENCE_KIND_{divergence.kind.name}"),
        position=divergence.position,
        inputs=divergence.inputs,
    )
    if divergence.expected is not None:
        message.expected.CopyFrom(_divergent_call(divergence.expected, divergence.expected.position))
        message.expected.input_digests.update(_digests(divergence.expected.inputs))
    if divergence.actual is not None:
        message.actual.CopyFrom(_divergent_call(divergence.actual, divergence.recorded_at))
        message.actual.input_digests.update(_digests(divergence.actual.inputs))
    first = divergence.position - len(divergence.before)
    message.before.extend(_divergent_call(call, at) for at, call in enumerate(divergence.before, start=first))
    message.following.extend(_divergent_call(call, call.position) for call in divergence.following)
    return Failure(
        origin=FAILURE_ORIGIN_DIVERGENCE,
        message=describe(divergence),
        exception_type="dalsegno.errors:DivergenceError",
        divergence=message,
    )


def describe(divergence: Divergence) -> str:
    """Return what happened, and what may help, as a sentence or two."""
    expected, actual = _name(divergence.expected), _name(divergence.actual)
    where = f"call {divergence.position}"
    match divergence.kind:
        case DivergenceKind.REORDERED_CALL:
            text = f"{where} is {actual}, which is recorded as call {divergence.recorded_at}; {expected} was expected"
        case DivergenceKind.RENAMED_CALL:
            text = f"{where} is {actual} with the inputs of {expected}, which was expected"
        case DivergenceKind.EXTRA_CALL:
            text = f"{where} is {actual}, which is not recorded; {expected} was expected"
        case DivergenceKind.MISSING_CALL:
            text = f"the body ended before {where}, {expected}, which is recorded and was to be reused"
        case DivergenceKind.ROOT_NOT_REACHED:
            text = f"the body ended before {where}, {expected}: it reached nothing that was to re-execute"
        case DivergenceKind.INPUT_CHANGED:
            changed = ", ".join(map(repr, divergence.inputs))
            text = f"{where}, {actual}, came with other inputs than recorded ({changed}), and nothing new explains it"
        case DivergenceKind.GRAPH_CHANGED:
            text = "the arguments of today's code are not those that are recorded"
        case _:
            assert_never(divergence.kind)
    return f"{text}.{_advice(divergence)}"


def _advice(divergence: Divergence) -> str:
    if divergence.kind is not DivergenceKind.INPUT_CHANGED and divergence.inputs:
        return f" Overridden flow inputs may have caused it: {', '.join(divergence.inputs)}."
    if not divergence.in_replay:
        return " A body that goes on has to make the same calls as before: restore its code, and retry the execution."
    return (
        " The body must make the same calls as when it was recorded until something new reaches it: restore that part"
        " of its code and retry, or replay from an earlier step."
    )


def _name(call: Recorded | Made | None) -> str:
    if call is None:
        return "nothing"
    what = "wait" if call.kind is CallKind.WAIT else "step"
    same = call.invocation_id == call.name
    return f"{what} {call.name!r}" if same else f"{what} {call.name!r} ({call.invocation_id})"


def _divergent_call(call: Recorded | Made, position: int) -> DivergentCall:
    wait = call.kind is CallKind.WAIT
    return DivergentCall(
        kind=execution_pb2.INVOCATION_KIND_WAIT if wait else execution_pb2.INVOCATION_KIND_STEP,
        name=call.name,
        invocation_id=call.invocation_id,
        position=position,
    )


def _digests(inputs: Inputs) -> dict[str, str]:
    return {name: fingerprint.digest.hex() for name, fingerprint in inputs.items()}
