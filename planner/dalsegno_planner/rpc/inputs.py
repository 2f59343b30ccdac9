"""What the inputs of a step use: other steps, inputs of the execution, large values."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

from dalsegno.errors import UsageError
from dalsegno.v1.value_pb2 import Binding, Inputs, OutputRef, Payload
from dalsegno_planner.rpc.input_shapes import InputShape, shape_of
from dalsegno_planner.rpc.values import ValueReader

_DEEPEST_BINDING = 100
_MOST_SHAPES = 1_000

Report = Callable[[str, str], None]


class InputsReader:
    """Follows bindings. One serves all steps of a graph, one after the other, as there may be millions.

    Args:
        flow_inputs: The names of the execution's inputs.
        values: Completes payloads.
        outputs_of: Returns the names of the outputs of an earlier step.
        report: Takes a problem: a field of the request, and what is wrong with it.
    """

    def __init__(
        self,
        flow_inputs: Container[str],
        values: ValueReader,
        outputs_of: Callable[[int], Sequence[str]],
        report: Report,
    ) -> None:
        self.message = Inputs()
        self.upstream: set[int] = set()
        self.order_alone: list[int] = []
        self.flow_inputs: set[str] = set()
        self.large: list[tuple[Payload, str]] = []
        self._known_flow_inputs = flow_inputs
        self._values = values
        self._outputs_of = outputs_of
        self._report = report
        self._number = 0
        self._is_changed = self._is_odd = False
        # By the code of the step, as calls of a step have inputs that look alike, and by their length.
        self._shapes: dict[tuple[bytes, int], InputShape] = {}

    def recall(self, number: int, code: bytes, given: bytes) -> tuple[list[int], Sequence[str]] | None:
        """Return the steps and flow inputs that inputs use, if their shape is known; otherwise they are to be read.

        Args:
            number: The step.
            code: Its code.
            given: Its `Inputs`.
        """
        shape = self._shapes.get((code, len(given)))
        references = shape.references(given) if shape is not None else None
        if shape is None or references is None:
            return None
        for upstream, output in references:
            if not 0 < upstream < number or output not in self._outputs_of(upstream):
                return None
        if len(references) == 1:
            return [references[0][0]], shape.flow_inputs
        return sorted({upstream for upstream, _ in references}), shape.flow_inputs

    def learn(self, code: bytes, given: bytes) -> None:
        """Keep the shape of the inputs that were read last, if they are right and stay as they are."""
        if not self._is_odd and len(self._shapes) < _MOST_SHAPES:
            shape = shape_of(given, sorted(self.flow_inputs))
            if shape is not None:
                self._shapes.setdefault((code, len(given)), shape)

    def read(self, number: int, given: bytes, after: list[int]) -> bytes:
        """Turn to the step with this number, note what its inputs use, and return them as they are stored.

        Args:
            number: The step.
            given: Its `Inputs`.
            after: The steps that it was declared to come after.
        """
        self.begin(number)
        inputs = self.message = Inputs.FromString(given)
        for name, binding in inputs.bindings.items():
            self.follow(binding, name)
        if after or inputs.comes_after:
            # What it takes something from it comes after anyway: `after` is the order alone.
            inputs.comes_after[:] = sorted(self.upstream.intersection(after))
            self.order_alone = [one for one in after if one not in self.upstream]
            self.after(self.order_alone)
            self._is_changed = self._is_odd = True
        return inputs.SerializeToString() if self._is_changed else given

    def begin(self, number: int) -> None:
        """Turn to the step with this number."""
        self._number, self._is_changed, self._is_odd, self.order_alone = number, False, False, []
        if self.upstream:
            self.upstream.clear()
        if self.flow_inputs:
            self.flow_inputs.clear()
        if self.large:
            self.large.clear()

    def for_result(self, report: Report) -> InputsReader:
        """Return a reader of what comes after all steps."""
        return InputsReader(self._known_flow_inputs, self._values, self._outputs_of, report)

    def after(self, numbers: Iterable[int]) -> None:
        """Note the steps that this one comes after."""
        for number in numbers:
            if 0 < number < self._number:
                self.upstream.add(number)
            else:
                self._report(f"steps[{self._number}].after", self._no_earlier_step(number))

    def follow(self, binding: Binding, path: str, depth: int = 0) -> None:
        """Note what a binding uses, and complete the values in it."""
        kind = binding.WhichOneof("kind")
        if kind == "output":
            self._output(binding.output, path)
        elif kind == "value":
            value = binding.value
            if not self._values.is_complete(value):
                self._complete(value, path)
        elif kind == "flow_input":
            self._flow_input(binding.flow_input, path)
        elif kind is None:
            self._problem(path, "the binding says nothing; give a value, an output or a flow input")
        elif depth >= _DEEPEST_BINDING:
            self._problem(path, f"bindings are nested more than {_DEEPEST_BINDING} deep")
        elif kind == "map":
            self._map(binding, path, depth)
        else:
            items = binding.list.items if kind == "list" else binding.tuple.items
            for place, item in enumerate(items):
                self.follow(item, f"{path}[{place}]", depth + 1)

    def _map(self, binding: Binding, path: str, depth: int) -> None:
        for place, entry in enumerate(binding.map.entries):
            if entry.WhichOneof("key") == "encoded":
                self._complete(entry.encoded, f"{path}[{place}].key")
            self.follow(entry.value, f"{path}[{place}]", depth + 1)

    def _complete(self, payload: Payload, path: str) -> None:
        field, self._is_changed, self._is_odd = self._field(path), True, True
        try:
            if self._values.complete(payload, field):
                self.large.append((payload, field))
        except UsageError as error:
            self._report(field, str(error))

    def _output(self, reference: OutputRef, path: str) -> None:
        number = reference.number
        if 0 < number < self._number:
            self.upstream.add(number)
            outputs = self._outputs_of(number)
            if reference.output not in outputs:
                listed = ", ".join(outputs)
                self._problem(path, f"step {number} has no output {reference.output!r}; it has {listed}")
        else:
            self._problem(path, self._no_earlier_step(number))
        for alternative in reference.alternatives:
            self._output(alternative, path)

    def _flow_input(self, name: str, path: str) -> None:
        if name not in self._known_flow_inputs:
            self._problem(path, f"the execution has no input {name!r}")
        self.flow_inputs.add(name)

    def _no_earlier_step(self, number: int) -> str:
        if self._number == 1:
            return f"it refers to step {number}, and no step comes before it"
        earlier = f"1 to {self._number - 1}"
        return f"it refers to step {number}; a step refers only to those before it in the stream, which are {earlier}"

    def _problem(self, path: str, description: str) -> None:
        self._is_odd = True
        self._report(self._field(path), description)

    def _field(self, path: str) -> str:
        return f"steps[{self._number}].inputs.{path}"
