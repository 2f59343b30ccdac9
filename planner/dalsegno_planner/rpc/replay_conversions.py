"""Messages of the ReplayService to requests, and plans back to messages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from dalsegno.errors import UsageError
from dalsegno.v1 import replay_service_pb2 as messages
from dalsegno.v1.execution_pb2 import InvocationKind as InvocationKindMessage
from dalsegno.v1.value_pb2 import Payload, Value
from dalsegno.values import parse_json_text
from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.overrides import input_field, override_field, step_input_field
from dalsegno_planner.core.plan import Mode, OnStale, PlanEntry, RootReason
from dalsegno_planner.core.problems import Problem, usage
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.rpc.convert import is_name, optional_uuid, time_limit
from dalsegno_planner.rpc.graphs import GraphReader
from dalsegno_planner.rpc.ranks import LANES, check_priority
from dalsegno_planner.rpc.values import ValueReader, encode_json, payload_of
from dalsegno_planner.store.bindings import leaves, references
from dalsegno_planner.store.replay_entries import View
from dalsegno_planner.store.replay_request import ArtifactOrUuid, Creation, Given, ReplayRequest, TodaysCode

VIEWS: Mapping[int, View] = {
    messages.PLAN_VIEW_UNSPECIFIED: View.AFFECTED,
    messages.PLAN_VIEW_ROOTS: View.ROOTS,
    messages.PLAN_VIEW_AFFECTED: View.AFFECTED,
    messages.PLAN_VIEW_REUSED: View.REUSED,
}

_ON_STALE: Mapping[int, OnStale] = {
    messages.ON_STALE_UNSPECIFIED: OnStale.REUSE,
    messages.ON_STALE_REUSE: OnStale.REUSE,
    messages.ON_STALE_RERUN: OnStale.RERUN,
    messages.ON_STALE_FAIL: OnStale.FAIL,
}

_KINDS = {kind: InvocationKindMessage.Value(f"INVOCATION_KIND_{kind.name}") for kind in InvocationKind}
_REASONS = {reason: messages.RootReason.Value(f"ROOT_REASON_{reason.name}") for reason in RootReason}

_WRITTEN = re.compile(r"""\s*\{\s*"\$(artifact|value)"\s*:""")

_MODES: Mapping[str, Mode] = {
    "from": Mode.FROM,
    "skip": Mode.SKIP,
    "skip_successful": Mode.SKIP_SUCCESSFUL,
    "everything": Mode.EVERYTHING,
}


class RequestReader:
    """Makes requests of messages; what is wrong with their values is told at once.

    Args:
        values: Completes payloads. Nothing is stored before the replay is valid as a whole.
    """

    def __init__(self, values: ValueReader) -> None:
        self._values = values

    async def request(self, spec: messages.ReplaySpec, *, single_step: bool = False) -> ReplayRequest:
        """Return what a message asks for, and everything that is wrong with its form."""
        problems: list[Problem] = []
        mode = _mode(spec, problems)
        on_stale = _on_stale(spec, problems)
        return ReplayRequest(
            execution=spec.execution,
            project=spec.project,
            mode=mode,
            selectors=_selectors(spec),
            rerun_changed_code=spec.rerun_changed_code,
            inputs=self._given(spec.inputs, {name: input_field(name) for name in spec.inputs}),
            overrides=self._given(spec.overrides, {key: override_field(key) for key in spec.overrides}),
            step_input_overrides={
                key: self._given(one.inputs, {name: step_input_field(key, name) for name in one.inputs})
                for key, one in spec.step_input_overrides.items()
            },
            on_stale=on_stale,
            code=await self._code(spec) if spec.HasField("code") else None,
            single_step=single_step,
            problems=problems,
        )

    async def store(self, request: ReplayRequest) -> None:
        """Put the large values of a valid request into the object store."""
        every = [request.inputs, request.overrides, *request.step_input_overrides.values()]
        for values in every:
            for name, given in values.items():
                if isinstance(given, Payload):
                    await self._values.store(given, name)

    def _given(self, values: Mapping[str, Value], fields: Mapping[str, str]) -> dict[str, Given]:
        found: dict[str, Given] = {}
        for name, value in values.items():
            try:
                found[name] = self._value(value, fields[name])
            except UsageError as error:
                found[name] = usage(error.reason, fields[name], error.message)
        return found

    def _value(self, value: Value, field: str) -> Given:
        match value.WhichOneof("kind"):
            case "payload":
                self._values.complete(value.payload, field)
                return value.payload
            case "artifact_id":
                found = optional_uuid(value.artifact_id, field)
                if found is not None and value.HasField("uuid"):
                    self._values.complete(value.uuid, field)
                    return ArtifactOrUuid(found, value.uuid)
                if found is not None:
                    return found
            case "json":
                return self._json(value.json, field)
            case _:
                pass
        raise UsageError(f"{field} has no value; give a payload, an artifact ID or JSON", reason="MISSING_VALUE")

    def _json(self, text: str, field: str) -> Given:
        """A plain value, or where it is written `{"$artifact": "<uuid>"}` an artifact."""
        if _WRITTEN.match(text):
            tree = parse_json_text(text)
            if list(tree) == ["$artifact"]:
                found = optional_uuid(str(tree["$artifact"]), field)
                if found is not None:
                    return found
            if list(tree) == ["$value"]:
                text = json.dumps(tree["$value"])
        payload = payload_of(encode_json(text, field))
        self._values.complete(payload, field)
        return payload

    async def _code(self, spec: messages.ReplaySpec) -> TodaysCode:
        code = spec.code
        steps = result = None
        if code.steps:
            # Numbers, tasks and owner are given anew when the replay is created; which inputs there are is known then.
            named = {name for step in code.steps for name in references(step.inputs).flow_inputs}
            named |= {leaf.flow_input for _, leaf in leaves(code.result)}
            reader = GraphReader(new_execution_id(), spec.project, named, self._values)
            steps = await reader.rows(code.steps)
            if code.HasField("result"):
                result = await reader.result(code.result)
        return TodaysCode(
            module=code.definition.module,
            name=code.definition.name,
            pinned_digest=code.definition.pinned_digest,
            code_digest=code.code_digest,
            definitions=tuple(code.definitions),
            steps=steps,
            result=result,
            shaping_inputs=tuple(code.shaping_inputs),
        )


def creation(request: messages.ReplayServiceCreateRequest) -> Creation:
    """Return how a replay is to be created.

    Raises:
        UsageError: The request ID, the name or the priority cannot be one.
    """
    if request.name and not is_name(request.name):
        raise UsageError("a run name has 1 to 200 characters that print", reason="INVALID_NAME", fields={"name": ""})
    check_priority(request)
    return Creation(
        request_id=optional_uuid(request.request_id, "request_id"),
        request_digest=hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=32).hexdigest(),
        expected_plan=request.expect_plan,
        name=request.name,
        requested_by=request.requested_by,
        debug=request.debug,
        time_limit=time_limit(request.timeout) if request.HasField("timeout") else None,
        lane=LANES.get(request.lane),
        priority=request.priority,
    )


def entry_message(entry: PlanEntry) -> messages.PlanEntry:
    """Return the message for an entry of a plan."""
    # Most entries have nothing but these, and fields cost what they cost also where they are empty.
    message = messages.PlanEntry(
        number=entry.number, invocation_id=entry.invocation_id, name=entry.name, kind=_KINDS[entry.kind]
    )
    if entry.reasons:
        message.reasons.extend(messages.Reason(reason=_REASONS[one.reason], cause=one.cause) for one in entry.reasons)
    if entry.call_id is not None:
        message.call_id = str(entry.call_id)
    if entry.recorded_seconds:
        message.recorded_seconds = entry.recorded_seconds
    if entry.output_overridden:
        message.output_overridden = True
    return message


def view(message: int) -> View:
    """Return which entries are asked for.

    Raises:
        UsageError: There is no such view.
    """
    if message not in VIEWS:
        raise UsageError(f"there is no view {message}", reason="UNKNOWN_VIEW", fields={"view": str(message)})
    return VIEWS[message]


def _mode(spec: messages.ReplaySpec, problems: list[Problem]) -> Mode | None:
    name = spec.WhichOneof("mode")
    if name is None:
        return None
    if name in ("skip_successful", "everything") and not getattr(spec, name):
        problems.append(usage("INVALID_REPLAY", name, "it must be true where it is given; leave it out otherwise"))
    return _MODES[name]


def _selectors(spec: messages.ReplaySpec) -> tuple[str, ...]:
    match spec.WhichOneof("mode"):
        case "from":
            return tuple(getattr(spec, "from").selectors)
        case "skip":
            return tuple(spec.skip.selectors)
        case _:
            return ()


def _on_stale(spec: messages.ReplaySpec, problems: list[Problem]) -> OnStale:
    if spec.on_stale not in _ON_STALE:
        problems.append(
            usage("INVALID_REPLAY", "on_stale", f"there is no choice {spec.on_stale}; it is REUSE, RERUN or FAIL")
        )
    return _ON_STALE.get(spec.on_stale, OnStale.REUSE)
