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
from dalsegno.v1.value_pb2 import Binding, OutputRef, Payload


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
            "started_at": _time(message, "started_at"),
            "finished_at": _time(message, "finished_at"),
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
        step = message.step
        self._ids.append(step.invocation_id)
        state = message.state or execution_pb2.INVOCATION_STATE_COMPLETED
        is_wait = message.kind == execution_pb2.INVOCATION_KIND_WAIT
        form: dict[str, Any] = {
            "invocation_id": step.invocation_id,
            "name": step.definition.name,
            "kind": "wait" if is_wait else "",
            "status": word_of(execution_pb2.InvocationState.Name(state), "INVOCATION_STATE_"),
            "module": "" if step.definition.module == self._module else step.definition.module,
            "inputs": {name: self.binding(step.inputs.bindings[name]) for name in sorted(step.inputs.bindings)},
            "after": [self._ids[number - 1] for number in step.after],
            "outputs": {output.name: self._value(output.payload) for output in message.outputs.outputs},
            "code_digest": step.code_digest,
            "options": options_form(step.options),
            "started_at": _time(message, "started_at"),
            "finished_at": _time(message, "finished_at"),
            "failure": failure_form(message.failure) if message.HasField("failure") else None,
            "wait": wait_form(message.wait) if message.HasField("wait") else None,
            "yielded": message.yielded,
            "attempt": 0 if message.attempt == 1 else message.attempt,
            "failed_attempts": [attempt_form(one) for one in message.failed_attempts],
            "output_overridden": message.output_overridden,
            "overridden_inputs": list(message.overridden_inputs),
            "stale_inputs": message.stale_inputs,
            "original_call_id": message.original_call_id,
        }
        if message.HasField("returned"):
            form["returned"] = {output.name: self._value(output.payload) for output in message.returned.outputs}
        kept = ("inputs", "outputs", "returned")
        return {name: value for name, value in form.items() if value or name in kept}

    def binding(self, message: Binding) -> Any:
        """Return where an input comes from."""
        form = self._binding(message)
        if not message.digest or message.WhichOneof("kind") == "value":
            return form
        if type(form) is list:
            form = {"list": form}
        elif BINDING_FORMS.isdisjoint(form):
            form = {"dict": form}
        form["digest"] = message.digest.hex()
        return form if message.canonical else form | {"canonical": False}

    def _binding(self, message: Binding) -> Any:
        match message.WhichOneof("kind"):
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
        others = list(_flat(reference))
        if others:
            form["alternatives"] = [{"step": self._ids[other.number - 1], "output": other.output} for other in others]
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


def _time(message: ImportHeader | ImportedStep, name: str) -> str:
    return time_form(getattr(message, name)) if message.HasField(name) else ""  # type: ignore[arg-type]
