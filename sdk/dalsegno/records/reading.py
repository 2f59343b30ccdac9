"""Records as the messages of an import.

A million steps may come at a time: what most steps have is written directly in the format of messages, and paths are
put together only for what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.errors import DalsegnoError, NotFoundError, Problem
from dalsegno.records.bindings import BindingReader
from dalsegno.records.details import (
    checked_dict,
    enum_of,
    fill_attempt,
    fill_definition,
    fill_failure,
    fill_options,
    fill_time,
    fill_wait,
    flag_of,
    listed,
    mapping_of,
    text_of,
    texts_of,
    whole_of,
)
from dalsegno.records.places import MOST_PROBLEMS, Misfit, refusal, unknown_key
from dalsegno.records.values import ValueReader
from dalsegno.records.wire import content_start, text_field
from dalsegno.v1 import definition_pb2, execution_pb2
from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.execution_service_pb2 import ImportedStep, ImportedSteps, ImportHeader, StepSpec
from dalsegno.v1.value_pb2 import Binding, Output, Outputs

_HEADER_KEYS = frozenset(
    {
        *("flow", "kind", "module", "name", "status", "inputs", "result", "failure", "started_at", "finished_at"),
        *("code_digest", "shaping_inputs", "definitions"),
        *("original_exec_id", "requested_by", "overridden_inputs", "single_step", "debug"),
    }
)
_STEP_KEYS = frozenset(
    {
        *("invocation_id", "name", "kind", "module", "status", "inputs", "after", "outputs", "code_digest"),
        *("options", "failure", "started_at", "finished_at", "wait", "yielded"),
        *("attempt", "failed_attempts", "output_overridden", "returned", "overridden_inputs", "stale_inputs"),
        "original_call_id",
    }
)
_USUAL_KEYS = frozenset(
    {"invocation_id", "name", "status", "inputs", "outputs", "code_digest", "started_at", "finished_at"}
)
_STATES = ("completed", "failed", "cancelled", "not_reached")
_MOST_KNOWN = 1_000

_step_start = content_start(ImportedSteps.DESCRIPTOR, "steps")
_spec_start = content_start(ImportedStep.DESCRIPTOR, "step")
_outputs_start = content_start(ImportedStep.DESCRIPTOR, "outputs")
_id_start = content_start(StepSpec.DESCRIPTOR, "invocation_id")
_inputs_start = content_start(StepSpec.DESCRIPTOR, "inputs")
_output_start = content_start(Outputs.DESCRIPTOR, "outputs")
_output_name = text_field(Output.DESCRIPTOR, "name")
_payload_start = content_start(Output.DESCRIPTOR, "payload")
_code_digest = text_field(StepSpec.DESCRIPTOR, "code_digest")
_times = {name: content_start(ImportedStep.DESCRIPTOR, name) for name in ("started_at", "finished_at")}


class RecordReader:
    """Makes messages of a record, in its order."""

    def __init__(self, values: ValueReader) -> None:
        self._values = values
        self._module = ""
        self._bindings = BindingReader(values)
        self._definitions: dict[str, bytes] = {}
        self._count = 0
        self._problems: list[Problem] = []

    def header(self, given: Any, project: str, request_id: str) -> ImportHeader:
        """Return the header.

        Raises:
            UsageError: With everything that is wrong with it.
        """
        header = ImportHeader(project=project, request_id=request_id)
        try:
            checked_dict(given, _HEADER_KEYS)
        except Misfit as misfit:
            self._report("", misfit)
            self.check()
        for name, value in {"flow": None, "kind": None, **given}.items():
            try:
                self._header_field(header, name, value)
            except Misfit as misfit:
                self._report(name, misfit)
        self.check()
        self._module = header.definition.module
        return header

    def step(self, given: Any) -> bytes:
        """Return a step as a part of an `ImportedSteps`; what is wrong with it is kept for `check`.

        Raises:
            UsageError: If very much is wrong.
            NotFoundError: If it names an artifact that does not exist.
        """
        place = self._count
        self._count = place + 1
        try:
            return self._step(given)
        except Misfit as misfit:
            self._report(f"steps[{place}]", misfit)
        except UnicodeEncodeError as error:
            self._report(f"steps[{place}]", Misfit(f"has text that is no Unicode: {error}"))
        except NotFoundError as error:
            raise _at(error, f"steps[{place}]") from error
        return b""

    def returns(self, given: Any) -> Binding:
        """Return what a pipeline returns, in terms of its steps.

        Raises:
            UsageError: If it refers to what is not there.
        """
        binding = b""
        try:
            binding = self._bindings.binding(given)
        except Misfit as misfit:
            self._report("returns", misfit)
        self.check()
        return Binding.FromString(binding)

    def check(self) -> None:
        """Refuse the record if anything was found wrong with it.

        Raises:
            UsageError: With the problems.
        """
        if self._problems:
            raise refusal(self._problems)

    def _report(self, place: str, misfit: Misfit) -> None:
        self._problems.append(Problem((place + misfit.path).removeprefix("."), misfit.description))
        if len(self._problems) >= MOST_PROBLEMS:
            self.check()

    # The header.

    def _header_field(self, header: ImportHeader, name: str, value: Any) -> None:
        match name:
            case "flow":
                header.definition.name = _named(value, "the name of the flow or pipeline")
            case "kind":
                kinds = ("flow", "pipeline")
                header.kind = enum_of(value, definition_pb2.DefinitionKind.Value, "DEFINITION_KIND_", kinds)
            case "module":
                header.definition.module = text_of(value)
            case "name" | "code_digest" | "original_exec_id" | "requested_by":
                setattr(header, name, text_of(value))
            case "status":
                states = ("completed", "failed", "cancelled")
                header.state = enum_of(value, execution_pb2.ExecutionState.Value, "EXECUTION_STATE_", states)
            case "inputs":
                self._fill_header_inputs(header, value)
            case "result":
                self._values.fill(header.result.payload, value)
            case "failure":
                fill_failure(header.failure, value, self._values)
            case "started_at" | "finished_at":
                fill_time(getattr(header, name), value)
            case "shaping_inputs" | "overridden_inputs":
                getattr(header, name).extend(texts_of(value))
            case "single_step" | "debug":
                setattr(header, name, flag_of(value))
            case "definitions":
                for index, one in enumerate(listed(value)):
                    try:
                        fill_definition(header.definitions.add(), one)
                    except Misfit as misfit:
                        raise misfit.inside(f"[{index}]") from None

    def _fill_header_inputs(self, header: ImportHeader, given: Any) -> None:
        for name, value in mapping_of(given).items():
            try:
                self._values.fill(header.inputs[name].payload, value)
            except Misfit as misfit:
                raise misfit.inside(f".{name}") from None
            except NotFoundError as error:
                raise _at(error, f"inputs.{name}") from error

    # A step.

    def _step(self, given: Any) -> bytes:
        if type(given) is not dict:
            raise Misfit(f"must be an object, not {given!r}")
        get = given.get
        invocation_id = _named(get("invocation_id"), "an invocation ID", ".invocation_id")
        name = _named(get("name"), "the name of a step", ".name")
        inputs, outputs, status = get("inputs"), get("outputs"), get("status", "completed")
        id_text = invocation_id.encode()
        spec = b"".join(
            (
                *(_id_start(len(id_text)), id_text),
                self._definition(name, given),
                _code_digest(_in("code_digest", text_of, given["code_digest"])) if "code_digest" in given else b"",
                self._inputs(inputs) if inputs else b"",
            )
        )
        parts = (
            *(_spec_start(len(spec)), spec),
            self._step_outputs(outputs) if outputs else b"",
            _state(status) if status != "completed" else b"",
            _time("started_at", given["started_at"]) if "started_at" in given else b"",
            _time("finished_at", given["finished_at"]) if "finished_at" in given else b"",
            # Its own spec becomes one with the one above.
            b"" if given.keys() <= _USUAL_KEYS else self._rest(given).SerializeToString(),
        )
        # From here on later steps may refer to it.
        known = self._bindings.numbers.setdefault(invocation_id, self._count)
        if known != self._count:
            raise Misfit(f"{invocation_id!r} is the invocation ID of steps[{known - 1}] already", ".invocation_id")
        step = b"".join(parts)
        return _step_start(len(step)) + step

    def _definition(self, name: str, given: Mapping[str, Any]) -> bytes:
        if "module" in given:
            return _definition(_in("module", text_of, given["module"]), name)
        known = self._definitions.get(name)
        if known is None:
            known = _definition(self._module, name)
            if len(self._definitions) < _MOST_KNOWN:
                self._definitions[name] = known
        return known

    def _rest(self, given: Mapping[str, Any]) -> ImportedStep:
        wrong = unknown_key(given, _STEP_KEYS)
        if wrong is not None:
            raise wrong
        message = ImportedStep()
        step = message.step
        for name, value in given.items():
            match name:
                case "after":
                    step.after.extend(
                        self._bindings.number(one, f".after[{index}]") for index, one in enumerate(listed(value))
                    )
                case "options":
                    _in(name, fill_options, step.options, value)
                case "kind":
                    kinds = ("step", "wait")
                    message.kind = _in(
                        name, enum_of, value, execution_pb2.InvocationKind.Value, "INVOCATION_KIND_", kinds
                    )
                case "failure":
                    _in(name, fill_failure, message.failure, value, self._values)
                case "wait":
                    _in(name, fill_wait, message.wait, value)
                case "yielded":
                    message.yielded = _in(name, _place, value)
                case _:
                    self._add_marks(message, name, value)
        return message

    def _add_marks(self, message: ImportedStep, name: str, value: Any) -> None:
        match name:
            case "attempt":
                message.attempt = _in(name, whole_of, value)
            case "failed_attempts":
                _in(name, self._add_failed_attempts, message, value)
            case "output_overridden" | "stale_inputs":
                setattr(message, name, _in(name, flag_of, value))
            case "original_call_id":
                message.original_call_id = _in(name, text_of, value)
            case "overridden_inputs":
                message.overridden_inputs.extend(_in(name, texts_of, value))
            case "returned":
                message.returned.SetInParent()
                message.returned.MergeFromString(self._outputs(value, name))

    def _add_failed_attempts(self, message: ImportedStep, given: Any) -> None:
        for place, one in enumerate(listed(given)):
            try:
                fill_attempt(message.failed_attempts.add(), one, self._values)
            except Misfit as misfit:
                raise misfit.inside(f"[{place}]") from None

    def _inputs(self, inputs: Any) -> bytes:
        content = self._bindings.inputs(inputs)
        return _inputs_start(len(content)) + content

    def _step_outputs(self, outputs: Any) -> bytes:
        content = self._outputs(outputs, "outputs")
        return _outputs_start(len(content)) + content

    def _outputs(self, outputs: Any, where: str) -> bytes:
        parts: list[bytes] = []
        for name, value in mapping_of(outputs, f".{where}").items():
            try:
                payload = self._values.payload(value)
            except Misfit as misfit:
                raise misfit.inside(f".{where}.{name}") from None
            named, start = _output_name(name), _payload_start(len(payload))
            parts += (_output_start(len(named) + len(start) + len(payload)), named, start, payload)
        return b"".join(parts)


def _in(name: str, fill: Any, *args: Any) -> Any:
    try:
        return fill(*args)
    except Misfit as misfit:
        raise misfit.inside(f".{name}") from None


def _definition(module: str, name: str) -> bytes:
    return StepSpec(definition=DefinitionRef(module=module, name=name)).SerializeToString()


def _time(name: str, value: Any) -> bytes:
    message = Timestamp()
    _in(name, fill_time, message, value)
    content = message.SerializeToString()
    return _times[name](len(content)) + content


def _state(status: Any) -> bytes:
    state = _in("status", enum_of, status, execution_pb2.InvocationState.Value, "INVOCATION_STATE_", _STATES)
    return ImportedStep(state=state).SerializeToString()


def _named(value: Any, what: str, path: str = "") -> str:
    if type(value) is not str or not value.strip():
        raise Misfit(f"must be {what}, not {value!r}" if value is not None else f"is missing: {what}", path)
    return value


def _place(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise Misfit(f"must be a place from 1, not {value!r}")
    return value


def _at(error: DalsegnoError, place: str) -> NotFoundError:
    return NotFoundError(f"{place}: {error.message}", reason=error.reason, fields=error.fields)
