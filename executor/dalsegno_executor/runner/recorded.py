"""The recorded calls of a body's task, as the matching rules want them."""

from __future__ import annotations

from collections.abc import Iterable

from dalsegno.provenance import Origin, Parts, Traced
from dalsegno.v1.execution_pb2 import INVOCATION_KIND_WAIT
from dalsegno.v1.executor_service_pb2 import (
    RECORDED_CALL_ACTION_AWAIT,
    RECORDED_CALL_ACTION_REUSE,
    RecordedCall,
    RecordedCallAction,
    ReplayRules,
)
from dalsegno.v1.replay_service_pb2 import ON_STALE_FAIL, ON_STALE_RERUN
from dalsegno.v1.value_pb2 import Binding, BindingEntry, OutputRef
from dalsegno.v1.value_pb2 import Inputs as InputsMessage
from dalsegno_executor.runner.fingerprints import FLOW_INPUT, Fingerprint, Inputs, Source
from dalsegno_executor.runner.matching import Action, CallKind, OnStale, Recorded, Rules


def recorded_call(call: RecordedCall) -> Recorded:
    """Return a recorded call without its values."""
    return Recorded(
        number=call.number,
        position=call.position,
        kind=CallKind.WAIT if call.kind == INVOCATION_KIND_WAIT else CallKind.STEP,
        name=call.name,
        invocation_id=call.invocation_id,
        action=_action(call.action),
        inputs=fingerprints(call.inputs),
        own=call.own,
        override_is_new=call.override_is_new,
    )


def replay_rules(rules: ReplayRules) -> Rules:
    """Return the rules of a replay."""
    on_stale = {ON_STALE_RERUN: OnStale.RERUN, ON_STALE_FAIL: OnStale.FAIL}
    return Rules(
        overridden_inputs=frozenset(rules.overridden_inputs),
        on_stale=on_stale.get(rules.on_stale, OnStale.REUSE),
        roots=frozenset(rules.roots),
    )


def fingerprints(inputs: InputsMessage) -> Inputs:
    """Return what is known of the inputs of a call."""
    bindings = inputs.bindings
    return {name: fingerprint(bindings[name]) for name in bindings}


def traced_fingerprint(traced: Traced) -> Fingerprint:
    """Return what is known of an input of a call that is being made: the same as of what is reported of it."""
    if isinstance(traced, Origin):
        sources = traced.outputs or ((FLOW_INPUT, str(traced.flow_input)),)
        return Fingerprint(traced.digest, traced.canonical, frozenset(sources))
    if isinstance(traced, Parts):
        return Fingerprint(traced.digest, traced.canonical, parts=tuple(_traced_parts(traced)))
    if isinstance(traced, Binding):
        return fingerprint(traced)
    return Fingerprint(traced.digest, traced.canonical)


def fingerprint(binding: Binding) -> Fingerprint:
    """Return what is known of one input."""
    kind = binding.WhichOneof("kind")
    digest, canonical = binding.digest, binding.canonical
    if not digest and kind == "value":
        digest, canonical = binding.value.digest, binding.value.canonical
    match kind:
        case "output":
            return Fingerprint(digest, canonical, _sources(binding.output))
        case "flow_input":
            return Fingerprint(digest, canonical, frozenset(((FLOW_INPUT, binding.flow_input),)))
        case "list" | "tuple" | "map":
            return Fingerprint(digest, canonical, parts=tuple(_parts(binding, kind)))
        case _:
            return Fingerprint(digest, canonical)


def _sources(output: OutputRef) -> frozenset[Source]:
    first = (output.number, output.output)
    if not output.alternatives:
        return frozenset((first,))
    return frozenset((first, *((other.number, other.output) for other in output.alternatives)))


def _parts(binding: Binding, kind: str) -> Iterable[tuple[str, Fingerprint]]:
    if kind == "map":
        for entry in binding.map.entries:
            yield _key(entry), fingerprint(entry.value)
    else:
        items = binding.list.items if kind == "list" else binding.tuple.items
        for index, item in enumerate(items):
            yield str(index), fingerprint(item)


def _traced_parts(parts: Parts) -> Iterable[tuple[str, Fingerprint]]:
    for index, item in enumerate(parts.items):
        key = parts.keys[index] if parts.keys else str(index)
        yield key if isinstance(key, str) else key.digest.hex(), traced_fingerprint(item)


def _key(entry: BindingEntry) -> str:
    return entry.encoded.digest.hex() if entry.WhichOneof("key") == "encoded" else entry.text


def _action(action: RecordedCallAction.ValueType) -> Action:
    if action == RECORDED_CALL_ACTION_REUSE:
        return Action.REUSE
    return Action.AWAIT if action == RECORDED_CALL_ACTION_AWAIT else Action.EXECUTE
