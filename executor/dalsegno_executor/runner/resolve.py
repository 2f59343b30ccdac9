"""The values of a step's inputs, from their bindings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from dalsegno.errors import BackendError, DalsegnoError
from dalsegno.v1.executor_service_pb2 import UpstreamOutputs
from dalsegno.v1.value_pb2 import Binding, BindingMap, FlowInputs, Inputs, OutputRef, Payload
from dalsegno_executor.runner.environment import Environment, Read


class Resolver:
    """Turns bindings into values.

    Args:
        environment: Reads payloads.
        upstream: The outputs that bindings refer to.
        flow_inputs: The inputs of the execution that bindings refer to.
    """

    def __init__(self, environment: Environment, upstream: Iterable[UpstreamOutputs], flow_inputs: FlowInputs) -> None:
        self._environment = environment
        self._flow_inputs: Mapping[str, Payload] = flow_inputs.values
        self._outputs = {
            (entry.number, output.name): output.payload for entry in upstream for output in entry.outputs.outputs
        }

    def arguments(self, inputs: Inputs) -> dict[str, object]:
        """Return the arguments by parameter name; each value is an object of its own.

        What of them is in the object store is got at once, and decoded in order.

        Raises:
            BackendError: If a value is not to be had.
        """
        return self._values(inputs, self._environment.reader(lambda: self._objects_of(inputs)))

    def _objects_of(self, inputs: Inputs) -> list[str]:
        keys: list[str] = []
        # What is wrong with an input is said when it is its turn.
        with suppress(DalsegnoError):
            self._values(inputs, lambda payload: keys.append(payload.object_key))
        return keys

    def _values(self, inputs: Inputs, read: Read) -> dict[str, object]:
        return {name: self._value(binding, read) for name, binding in inputs.bindings.items()}

    def _value(self, binding: Binding, read: Read) -> Any:
        match binding.WhichOneof("kind"):
            case "value":
                return read(binding.value)
            case "output":
                return read(self._output(binding.output))
            case "flow_input":
                return read(self._flow_input(binding.flow_input))
            case "list":
                return [self._value(item, read) for item in binding.list.items]
            case "tuple":
                return tuple(self._value(item, read) for item in binding.tuple.items)
            case "map":
                return dict(self._entries(binding.map, read))
            case _:
                raise BackendError(
                    "an input came without a binding; the planner and this executor do not fit each other",
                    reason="UNKNOWN_BINDING",
                )

    def _entries(self, entries: BindingMap, read: Read) -> Iterable[tuple[Any, Any]]:
        for entry in entries.entries:
            encoded = entry.WhichOneof("key") == "encoded"
            yield read(entry.encoded) if encoded else entry.text, self._value(entry.value, read)

    def _output(self, ref: OutputRef) -> Payload:
        found = self._outputs.get((ref.number, ref.output))
        if found is None:
            raise BackendError(
                f"output {ref.output!r} of call {ref.number} is needed and was not sent; where a step takes more than "
                "128 MiB of small values, have it take fewer and larger ones, which are kept in the object store",
                reason="MISSING_OUTPUT",
                fields={"number": str(ref.number), "output": ref.output},
            )
        return found

    def _flow_input(self, name: str) -> Payload:
        found = self._flow_inputs.get(name)
        if found is None:
            raise BackendError(
                f"flow input {name!r} is needed and was not sent", reason="MISSING_INPUT", fields={"input": name}
            )
        return found
