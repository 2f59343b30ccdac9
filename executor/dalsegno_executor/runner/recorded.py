"""The recorded calls of a body's task, as the matching rules want them."""

from __future__ import annotations

from collections.abc import Iterable

from dalsegno.v1.execution_pb2 import INVOCATION_KIND_WAIT
from dalsegno.v1.executor_service_pb2 import (
    RECORDED_CALL_ACTION_AWAIT,
    RECORDED_CALL_ACTION_REUSE,
    RecordedCall,
    RecordedCallAction,
    ReplayRules,
)
from dalsegno.v1.replay_service_pb2 import ON_STALE_FAIL, ON_STALE_RERUN
from dalsegno.v1.value_pb2 import Binding, BindingEntry
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
    return {name: fingerprint(binding) for name, binding in inputs.bindings.items()}


def fingerprint(binding: Binding) -> Fingerprint:
    """Return what is known of one input."""
    kind = binding.WhichOneof("kind")
    digest, canonical = binding.digest, binding.canonical
    if not digest and kind == "value":
        digest, canonical = binding.value.digest, binding.value.canonical
    return Fingerprint(digest, canonical, frozenset(_sources(binding, kind)), tuple(_parts(binding, kind)))


def _sources(binding: Binding, kind: str | None) -> Iterable[Source]:
    if kind == "flow_input":
        yield FLOW_INPUT, binding.flow_input
    elif kind == "output":
        yield binding.output.number, binding.output.output
        for alternative in binding.output.alternatives:
            yield alternative.number, alternative.output


def _parts(binding: Binding, kind: str | None) -> Iterable[tuple[str, Fingerprint]]:
    if kind == "map":
        for entry in binding.map.entries:
            yield _key(entry), fingerprint(entry.value)
    elif kind in ("list", "tuple"):
        items = binding.list.items if kind == "list" else binding.tuple.items
        for index, item in enumerate(items):
            yield str(index), fingerprint(item)


def _key(entry: BindingEntry) -> str:
    return entry.encoded.digest.hex() if entry.WhichOneof("key") == "encoded" else entry.text


def _action(action: RecordedCallAction.ValueType) -> Action:
    if action == RECORDED_CALL_ACTION_REUSE:
        return Action.REUSE
    return Action.AWAIT if action == RECORDED_CALL_ACTION_AWAIT else Action.EXECUTE
