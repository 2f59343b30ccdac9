"""Records as the messages of an import.

A million steps may come at a time: what most steps have is done in few lines of Python, and paths are put together
only for what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dalsegno.errors import DalsegnoError, NotFoundError, Problem
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
    text_of,
    texts_of,
    whole_of,
)
from dalsegno.records.places import MOST_PROBLEMS, Misfit, refusal, unknown_key
from dalsegno.records.values import ValueReader
from dalsegno.v1 import definition_pb2, execution_pb2
from dalsegno.v1.execution_service_pb2 import ImportedStep, ImportedSteps, ImportHeader
from dalsegno.v1.value_pb2 import Binding, Inputs, OutputRef, Outputs

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
    }
)
_USUAL_KEYS = frozenset({"invocation_id", "name", "status", "inputs", "outputs"})
FORMS = frozenset({"step", "flow_input", "value", "list", "tuple", "dict"})
_BINDING_KEYS = {
    "step": frozenset({"step", "output", "alternatives", "digest", "canonical"}),
    **{form: frozenset({form, "digest", "canonical"}) for form in ("flow_input", "list", "tuple", "dict")},
    "value": frozenset({"value"}),
}
_ONLY_TEXTS = frozenset({str})
_STATES = ("completed", "failed", "cancelled", "not_reached")
_BINDING = 'a step\'s output {"step": …, "output": …}, {"flow_input": …}, {"value": …}, or a list or dict of these'


class RecordReader:
    """Makes messages of a record, in its order."""

    def __init__(self, values: ValueReader) -> None:
        self._values = values
        self._module = ""
        self._numbers: dict[str, int] = {}
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

    def add(self, batch: ImportedSteps, given: Any) -> None:
        """Add a step to a message; what is wrong with it is kept for `check`.

        Raises:
            UsageError: If very much is wrong.
            NotFoundError: If it names an artifact that does not exist.
        """
        place = self._count
        self._count = place + 1
        try:
            self._add(batch.steps.add(), given)
        except Misfit as misfit:
            self._report(f"steps[{place}]", misfit)
        except NotFoundError as error:
            raise _at(error, f"steps[{place}]") from error

    def returns(self, given: Any) -> Binding:
        """Return what a pipeline returns, in terms of its steps.

        Raises:
            UsageError: If it refers to what is not there.
        """
        binding = Binding()
        try:
            self._bind(binding, given)
        except Misfit as misfit:
            self._report("returns", misfit)
        self.check()
        return binding

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
                for index, one in enumerate(_listed(value)):
                    try:
                        fill_definition(header.definitions.add(), one)
                    except Misfit as misfit:
                        raise misfit.inside(f"[{index}]") from None

    def _fill_header_inputs(self, header: ImportHeader, given: Any) -> None:
        for name, value in _mapping(given).items():
            try:
                self._values.fill(header.inputs[name].payload, value)
            except Misfit as misfit:
                raise misfit.inside(f".{name}") from None
            except NotFoundError as error:
                raise _at(error, f"inputs.{name}") from error

    # A step.

    def _add(self, message: ImportedStep, given: Any) -> None:
        if type(given) is not dict:
            raise Misfit(f"must be an object, not {given!r}")
        step, get = message.step, given.get
        invocation_id = _named(get("invocation_id"), "an invocation ID", ".invocation_id")
        step.invocation_id = invocation_id
        definition = step.definition
        definition.name = _named(get("name"), "the name of a step", ".name")
        if self._module:
            definition.module = self._module
        inputs = get("inputs")
        if inputs:
            self._bind_inputs(step.inputs, inputs)
        outputs = get("outputs")
        if outputs:
            self._fill_outputs(message.outputs, "outputs", outputs)
        status = get("status", "completed")
        if status != "completed":
            message.state = _in(
                "status", enum_of, status, execution_pb2.InvocationState.Value, "INVOCATION_STATE_", _STATES
            )
        if not given.keys() <= _USUAL_KEYS:
            self._add_rest(message, given)
        # From here on later steps may refer to it.
        known = self._numbers.setdefault(invocation_id, self._count)
        if known != self._count:
            raise Misfit(f"{invocation_id!r} is the invocation ID of steps[{known - 1}] already", ".invocation_id")

    def _add_rest(self, message: ImportedStep, given: Mapping[str, Any]) -> None:
        wrong = unknown_key(given, _STEP_KEYS)
        if wrong is not None:
            raise wrong
        step = message.step
        for name, value in given.items():
            match name:
                case "module":
                    step.definition.module = _in(name, text_of, value)
                case "code_digest":
                    step.code_digest = _in(name, text_of, value)
                case "after":
                    step.after.extend(self._number(one, f".after[{index}]") for index, one in enumerate(_listed(value)))
                case "options":
                    _in(name, fill_options, step.options, value)
                case "kind":
                    kinds = ("step", "wait")
                    message.kind = _in(
                        name, enum_of, value, execution_pb2.InvocationKind.Value, "INVOCATION_KIND_", kinds
                    )
                case "failure":
                    _in(name, fill_failure, message.failure, value, self._values)
                case "started_at" | "finished_at":
                    _in(name, fill_time, getattr(message, name), value)
                case "wait":
                    _in(name, fill_wait, message.wait, value)
                case "yielded":
                    message.yielded = _in(name, _place, value)
                case _:
                    self._add_marks(message, name, value)

    def _fill_outputs(self, message: Outputs, where: str, outputs: Any) -> None:
        add = message.outputs.add
        for name, value in _mapping(outputs, f".{where}").items():
            try:
                self._values.fill(add(name=name).payload, value)
            except Misfit as misfit:
                raise misfit.inside(f".{where}.{name}") from None

    def _add_failed_attempts(self, message: ImportedStep, given: Any) -> None:
        for place, one in enumerate(_listed(given)):
            try:
                fill_attempt(message.failed_attempts.add(), one, self._values)
            except Misfit as misfit:
                raise misfit.inside(f"[{place}]") from None

    def _add_marks(self, message: ImportedStep, name: str, value: Any) -> None:
        match name:
            case "attempt":
                message.attempt = _in(name, whole_of, value)
            case "failed_attempts":
                _in(name, self._add_failed_attempts, message, value)
            case "output_overridden" | "stale_inputs":
                setattr(message, name, _in(name, flag_of, value))
            case "overridden_inputs":
                message.overridden_inputs.extend(_in(name, texts_of, value))
            case "returned":
                message.returned.SetInParent()
                self._fill_outputs(message.returned, name, value)

    # Inputs.

    def _bind_inputs(self, message: Inputs, inputs: Any) -> None:
        bindings = message.bindings
        for name, given in _mapping(inputs, ".inputs").items():
            try:
                self._bind(bindings[name], given)
            except Misfit as misfit:
                raise misfit.inside(f".inputs.{name}") from None

    def _bind(self, binding: Binding, given: Any) -> None:
        if type(given) is dict:
            # What most inputs are.
            if len(given) == 2 and "step" in given and "output" in given:
                self._refer(binding.output, given["step"], given["output"])
                return
            if len(given) == 1 and "value" in given:
                self._values.fill_binding(binding, given["value"])
                return
            form = next((key for key in given if key in FORMS), None)
            if form is not None:
                self._bind_form(binding, form, given)
                return
            given, form = {"dict": given}, "dict"
            self._bind_form(binding, form, given)
        elif type(given) in (list, tuple):
            self._bind_form(binding, type(given).__name__, {type(given).__name__: given})
        else:
            raise Misfit(f"must be {_BINDING}, not {given!r}")

    def _bind_form(self, binding: Binding, form: str, given: Mapping[str, Any]) -> None:
        wrong = unknown_key(given, _BINDING_KEYS[form])
        if wrong is not None:
            raise wrong
        content = given[form]
        match form:
            case "step":
                self._refer(binding.output, content, given.get("output", "output"))
                for one in _listed(given.get("alternatives", [])):
                    other = checked_dict(one, ("step", "output"))
                    self._refer(binding.output.alternatives.add(), other.get("step"), other.get("output", "output"))
            case "flow_input":
                binding.flow_input = text_of(content)
            case "value":
                self._values.fill_binding(binding, content)
            case "list" | "tuple":
                self._bind_items(binding, form, content)
            case "dict":
                self._bind_entries(binding, content)
        if "digest" in given:
            binding.digest = _digest(given["digest"])
            binding.canonical = bool(given.get("canonical", True))

    def _bind_items(self, binding: Binding, form: str, items: Any) -> None:
        target = binding.list if form == "list" else binding.tuple
        target.SetInParent()
        for index, item in enumerate(_listed(items)):
            try:
                self._bind(target.items.add(), item)
            except Misfit as misfit:
                raise misfit.inside(f"[{index}]") from None

    def _bind_entries(self, binding: Binding, entries: Any) -> None:
        binding.map.SetInParent()
        pairs: Iterable[Any] = entries.items() if type(entries) is dict else _listed(entries)
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise Misfit(f"must be an object, or a list of pairs [key, binding], not {pair!r}")
            key, item = pair
            entry = binding.map.entries.add()
            if type(key) is str:
                entry.text = key
            else:
                self._values.fill(entry.encoded, key)
            try:
                self._bind(entry.value, item)
            except Misfit as misfit:
                raise misfit.inside(f".{key}") from None

    def _refer(self, reference: OutputRef, step: Any, output: Any) -> None:
        number = self._numbers.get(step) if type(step) is str else None
        reference.number = self._number(step, "") if number is None else number
        if type(output) is not str:
            raise Misfit(f"must be the name of an output, not {output!r}", ".output")
        reference.output = output

    def _number(self, step: Any, path: str) -> int:
        number = self._numbers.get(step) if isinstance(step, str) else None
        if number is None:
            raise Misfit(f"refers to step {step!r}; a step refers only to those before it, and none has this ID", path)
        return number


def _in(name: str, fill: Any, *args: Any) -> Any:
    try:
        return fill(*args)
    except Misfit as misfit:
        raise misfit.inside(f".{name}") from None


def _named(value: Any, what: str, path: str = "") -> str:
    if type(value) is not str or not value.strip():
        raise Misfit(f"must be {what}, not {value!r}" if value is not None else f"is missing: {what}", path)
    return value


def _mapping(value: Any, path: str = "") -> Mapping[str, Any]:
    if (type(value) is dict or isinstance(value, Mapping)) and _ONLY_TEXTS.issuperset(map(type, value)):
        return value
    raise Misfit(f"must be an object, not {value!r}", path)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise Misfit(f"must be a list, not {value!r}")
    return list(value)


def _place(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise Misfit(f"must be a place from 1, not {value!r}")
    return value


def _digest(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise Misfit(f"{value!r} is no digest in hexadecimal digits", ".digest") from None


def _at(error: DalsegnoError, place: str) -> NotFoundError:
    return NotFoundError(f"{place}: {error.message}", reason=error.reason, fields=error.fields)
