"""The messages of an export as records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dalsegno.records.bindings import FORMS as BINDING_FORMS
from dalsegno.records.details import (
    attempt_form,
    definition_form,
    failure_form,
    options_form,
    time_form,
    wait_form,
    word_of,
)
from dalsegno.records.values import value_form
from dalsegno.v1 import definition_pb2, execution_pb2
from dalsegno.v1.execution_service_pb2 import ImportedStep, ImportHeader
from dalsegno.v1.value_pb2 import Binding, OutputRef, Outputs, Payload

_STATES = {
    number: word_of(execution_pb2.InvocationState.Name(number), "INVOCATION_STATE_")
    for number in execution_pb2.InvocationState.values()
} | {execution_pb2.INVOCATION_STATE_UNSPECIFIED: "completed"}
_PLAIN = ("yielded", "output_overridden", "stale_inputs", "original_call_id")


class RecordWriter:
    """Makes a record of messages, in their order.

    Args:
        content: Fetches what is not inline; without it, references are written.
    """

    def __init__(self, content: Callable[[Payload], bytes] | None = None) -> None:
        self._content = content
        self._ids: list[str] = []
        self._module = ""

    def header(self, message: ImportHeader) -> dict[str, Any]:
        """Return the header."""
        self._module = message.definition.module
        form: dict[str, Any] = {
            "flow": message.definition.name,
            "kind": word_of(definition_pb2.DefinitionKind.Name(message.kind), "DEFINITION_KIND_"),
            "name": message.name,
            "module": self._module,
            "status": message.state and word_of(execution_pb2.ExecutionState.Name(message.state), "EXECUTION_STATE_"),
            "code_digest": message.code_digest,
            "shaping_inputs": list(message.shaping_inputs),
            "started_at": time_form(message.started_at) if message.HasField("started_at") else "",
            "finished_at": time_form(message.finished_at) if message.HasField("finished_at") else "",
            "definitions": [definition_form(one) for one in message.definitions],
            "failure": failure_form(message.failure) if message.HasField("failure") else None,
            "original_exec_id": message.original_exec_id,
            "requested_by": message.requested_by,
            "overridden_inputs": list(message.overridden_inputs),
            "single_step": message.single_step,
            "debug": message.debug,
        }
        form = {name: value for name, value in form.items() if value}
        form["inputs"] = {name: self._value(message.inputs[name].payload) for name in sorted(message.inputs)}
        if message.HasField("result"):
            form["result"] = self._value(message.result.payload)
        return form

    def step(self, message: ImportedStep) -> dict[str, Any]:
        """Return a step; what is as it is by default is left out."""
        # What most steps have is looked at first, and each once: there may be a million.
        step = message.step
        invocation_id, definition, bindings = step.invocation_id, step.definition, step.inputs.bindings
        self._ids.append(invocation_id)
        form: dict[str, Any] = {
            "invocation_id": invocation_id,
            "name": definition.name,
            "status": _STATES[message.state],
            "inputs": {name: self.binding(bindings[name]) for name in sorted(bindings)},
            "outputs": self._outputs(message.outputs),
        }
        if step.code_digest:
            form["code_digest"] = step.code_digest
        if message.HasField("started_at"):
            form["started_at"] = time_form(message.started_at)
        if message.HasField("finished_at"):
            form["finished_at"] = time_form(message.finished_at)
        if definition.module != self._module and definition.module:
            form["module"] = definition.module
        if step.after:
            form["after"] = [self._ids[number - 1] for number in step.after]
        if step.HasField("options") and (options := options_form(step.options)):
            form["options"] = options
        self._add_rest(form, message)
        return form

    def _add_rest(self, form: dict[str, Any], message: ImportedStep) -> None:
        """Add what few steps have."""
        if message.kind == execution_pb2.INVOCATION_KIND_WAIT:
            form["kind"] = "wait"
        if message.HasField("wait"):
            form["wait"] = wait_form(message.wait)
        if message.HasField("failure"):
            form["failure"] = failure_form(message.failure)
        if message.attempt > 1:
            form["attempt"] = message.attempt
        if message.failed_attempts:
            form["failed_attempts"] = [attempt_form(one) for one in message.failed_attempts]
        if message.overridden_inputs:
            form["overridden_inputs"] = list(message.overridden_inputs)
        for name in _PLAIN:
            if value := getattr(message, name):
                form[name] = value
        if message.HasField("returned"):
            form["returned"] = self._outputs(message.returned)

    def _outputs(self, message: Outputs) -> dict[str, Any]:
        return {output.name: self._value(output.payload) for output in message.outputs}

    def binding(self, message: Binding) -> Any:
        """Return where an input comes from."""
        kind = message.WhichOneof("kind")
        form = self._binding(kind, message)
        if kind == "value" or not message.digest:
            return form
        if type(form) is list:
            form = {"list": form}
        elif BINDING_FORMS.isdisjoint(form):
            form = {"dict": form}
        form["digest"] = message.digest.hex()
        return form if message.canonical else form | {"canonical": False}

    def _binding(self, kind: str | None, message: Binding) -> Any:
        match kind:
            case "value":
                return {"value": self._value(message.value)}
            case "flow_input":
                return {"flow_input": message.flow_input}
            case "list":
                return [self.binding(item) for item in message.list.items]
            case "tuple":
                return {"tuple": [self.binding(item) for item in message.tuple.items]}
            case "map":
                return self._entries(message)
            case _:
                return self._output(message.output)

    def _output(self, reference: OutputRef) -> dict[str, Any]:
        form: dict[str, Any] = {"step": self._ids[reference.number - 1], "output": reference.output}
        if reference.alternatives:
            form["alternatives"] = [
                {"step": self._ids[other.number - 1], "output": other.output} for other in _flat(reference)
            ]
        return form

    def _entries(self, message: Binding) -> dict[str, Any]:
        entries = message.map.entries
        if all(entry.WhichOneof("key") == "text" for entry in entries):
            form = {entry.text: self.binding(entry.value) for entry in entries}
            return form if BINDING_FORMS.isdisjoint(form) else {"dict": form}
        pairs = []
        for entry in entries:
            key = self._value(entry.encoded) if entry.WhichOneof("key") == "encoded" else entry.text
            pairs.append([key, self.binding(entry.value)])
        return {"dict": pairs}

    def _value(self, payload: Payload) -> Any:
        return value_form(payload, self._content)


def _flat(reference: OutputRef) -> Iterator[OutputRef]:
    for other in reference.alternatives:
        yield other
        yield from _flat(other)
