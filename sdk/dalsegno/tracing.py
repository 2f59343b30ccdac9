"""Pipelines: the body is called once, with stand-ins for what steps return, and leaves a fixed graph."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dalsegno.arguments import Arguments, bind_arguments, call_arguments
from dalsegno.definitions import definition_ref, step_options
from dalsegno.durable import StepFuture, current_body, refuse_inside
from dalsegno.errors import ContextError, UsageError
from dalsegno.invocation_ids import InvocationIds
from dalsegno.payloads import encode_named, inline_payload
from dalsegno.placeholders import OutputPlaceholder, Parameter, asks_identity, parameter_for
from dalsegno.provenance import unknown_after
from dalsegno.steps import Step
from dalsegno.values import Encoded, encode

if TYPE_CHECKING:
    from dalsegno.decorators import Pipeline
    from dalsegno.v1.execution_service_pb2 import StepSpec
    from dalsegno.v1.value_pb2 import Binding, Inputs, Payload

_CONTAINERS = frozenset({list, tuple, dict})


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph of a pipeline.

    Attributes:
        name: The pipeline.
        steps: Its steps in the order of their calls, each after those that it refers to; the first has number
            1.
        definitions: The steps that they call, each once.
        inputs: The parameters, encoded, defaulted ones included.
        shaped_by: The parameters whose values the graph depends on, besides being passed on.
        result: What the body returned, in terms of outputs; None where it returned nothing.
    """

    name: str
    steps: tuple[StepSpec, ...]
    definitions: tuple[Step[..., Any], ...]
    inputs: Mapping[str, Encoded]
    shaped_by: frozenset[str]
    result: Binding | None

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        shown = ", ".join(step.invocation_id for step in self.steps[:8])
        more = f", … {len(self.steps) - 8} more" if len(self.steps) > 8 else ""
        return f"<graph of {self.name}: {shown}{more}>"


def trace(
    pipeline: Pipeline[..., Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    *,
    pinned: bool = False,
    payload_of: Callable[[Encoded], Payload] = inline_payload,
) -> Graph:
    """Call the body of a pipeline once and return the graph that it draws.

    Args:
        pipeline: The pipeline.
        args: Positional arguments.
        kwargs: Arguments by keyword.
        pinned: Whether the steps are to run with exactly the code that they have here.
        payload_of: Turns an encoded plain value of the graph into a payload.

    Raises:
        UsageError: If the arguments do not fit, or an output is used as if it had a value.
        ContextError: Inside a body or a step.
    """
    refuse_inside(f"tracing pipeline {pipeline.name!r}", "call it from a script or another process")
    arguments = bind_arguments(pipeline.function, args, kwargs)
    inputs = {
        name: encode_named(value, f"argument {name!r} of pipeline {pipeline.name!r}")
        for name, value in arguments.items()
    }
    shaped_by: set[str] = set()
    by_identity = asks_identity(pipeline.function)
    parameters = {
        name: parameter_for(name, value, inputs[name].digest, shaped_by, by_identity=by_identity)
        for name, value in arguments.items()
    }
    tracer = _Trace(pipeline.name, pinned, payload_of)
    token = current_body.set(tracer)
    try:
        # A stand-in for *args or **kwargs cannot be spread without being looked at; its elements are plain values.
        in_place, by_name = call_arguments(pipeline.function, parameters)
        returned = pipeline.function(*in_place, **by_name)
        result = None if returned is None else tracer.bind_named(returned, f"the result of pipeline {pipeline.name!r}")
    finally:
        current_body.reset(token)
    return Graph(pipeline.name, tuple(tracer.steps), tuple(tracer.definitions), inputs, frozenset(shaped_by), result)


class _Trace:
    """The body context that draws a graph."""

    draws_graph = True

    def __init__(self, pipeline: str, pinned: bool, payload_of: Callable[[Encoded], Payload]) -> None:
        self.steps: list[StepSpec] = []
        self.definitions: dict[Step[..., Any], None] = {}
        self._pipeline = pipeline
        self._pinned = pinned
        self._payload_of = payload_of
        self._common: dict[Step[..., Any], bytes] = {}
        self._ids = InvocationIds()
        self._numbers: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        self._returned: dict[int, object] = {}

    def call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> object:
        spec = self._spec_of(step)
        self._bind_inputs(spec.inputs, step, bind_arguments(step.function, args, kwargs))
        if after:
            spec.after.extend(sorted(self._upstream_of(after)))
        number = len(self.steps) + 1
        invocation_id = spec.invocation_id = self._ids.give(step.name, id)
        self.steps.append(spec)
        self.definitions[step] = None
        self._numbers[invocation_id] = self._latest[step.name] = number
        outputs = [OutputPlaceholder(number, invocation_id, output) for output in step.options.outputs]
        self._returned[number] = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return self._returned[number]

    def submit(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> StepFuture[Any]:
        self.call(step, args, kwargs, id=id, after=after)
        return StepFuture(self, len(self.steps), self.steps[-1].invocation_id)

    def future_result(self, number: int, timeout: float | None) -> object:
        return self._returned[number]

    def async_call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> Coroutine[Any, Any, object]:
        raise self._only_in_flows("awaiting a step")

    def wait(
        self,
        name: str | None,
        schema: object,
        question: str | None,
        timeout: float | None,
        metadata: Mapping[str, object] | None,
    ) -> NoReturn:
        raise self._only_in_flows("wait()")

    def as_completed(self, futures: Sequence[StepFuture[Any]]) -> Iterator[StepFuture[Any]]:
        raise self._only_in_flows("as_completed()")

    def future_exception(self, number: int, timeout: float | None) -> BaseException | None:
        raise self._only_in_flows("future.exception()")

    def future_done(self, number: int) -> bool:
        raise self._only_in_flows("future.done()")

    def future_await(self, number: int) -> Coroutine[Any, Any, object]:
        raise self._only_in_flows("awaiting a future")

    def bind(self, value: Any) -> Binding:
        """Return where a value comes from: an output, a parameter, a structure of these, or nowhere."""
        if type(value) is StepFuture:
            value = self._returned[value.number]
        if type(value) is OutputPlaceholder:
            return self._output(value)
        if type(value) is Parameter:
            return self._parameter(value)
        if type(value) in _CONTAINERS and _holds_stand_in(value, set()):
            return self._composite(value)
        return self._leaf(value)

    def bind_named(self, value: Any, what: str, **fields: str) -> Binding:
        """Bind a value; an error says which one it was."""
        try:
            return self.bind(value)
        except UsageError as error:
            raise UsageError(
                f"{what}: {error.message}",
                reason=error.reason,
                fields={**error.fields, **fields},
                problems=error.problems,
            ) from error

    def _spec_of(self, step: Step[..., Any]) -> StepSpec:
        """Return a new message with what all calls of a step have in common."""
        from dalsegno.v1.execution_service_pb2 import StepSpec

        common = self._common.get(step)
        if common is None:
            spec = StepSpec(
                definition=definition_ref(step, pinned=self._pinned),
                code_digest=step.digest,
                options=step_options(step.options),
            )
            spec.inputs.SetInParent()
            common = self._common[step] = spec.SerializeToString()
        return StepSpec.FromString(common)

    def _bind_inputs(self, inputs: Inputs, step: Step[..., Any], arguments: Arguments) -> None:
        for name, value in arguments.items():
            what = f"argument {name!r} of step {step.name!r}"
            inputs.bindings[name].CopyFrom(self.bind_named(value, what, step=step.name, parameter=name))

    def _output(self, placeholder: OutputPlaceholder) -> Binding:
        from dalsegno.v1.value_pb2 import Binding, OutputRef

        return Binding(output=OutputRef(number=placeholder.number, output=placeholder.output))

    def _parameter(self, parameter: Parameter) -> Binding:
        from dalsegno.v1.value_pb2 import Binding

        encoded = encode(parameter.__wrapped__)
        if encoded.digest != parameter._self_digest:
            # The body has changed it, so that it is not passed on as it came.
            return self._leaf(parameter.__wrapped__)
        return Binding(flow_input=parameter._self_name, digest=encoded.digest, canonical=encoded.canonical)

    def _composite(self, value: Any) -> Binding:
        from dalsegno.v1.value_pb2 import Binding

        binding = Binding()
        if type(value) is dict:
            binding.map.SetInParent()
            for key, item in value.items():
                self._add_entry(binding, key, item)
        else:
            items = binding.list.items if type(value) is list else binding.tuple.items
            items.extend(self.bind(item) for item in value)
        return binding

    def _add_entry(self, binding: Binding, key: object, item: object) -> None:
        entry = binding.map.entries.add(value=self.bind(item))
        if type(key) is Parameter:
            key = key.__wrapped__
        if type(key) is str:
            entry.text = key
        else:
            entry.encoded.CopyFrom(inline_payload(encode(key)))

    def _leaf(self, value: object) -> Binding:
        from dalsegno.v1.value_pb2 import Binding

        encoded = encode(value)
        return Binding(value=self._payload(encoded), digest=encoded.digest, canonical=encoded.canonical)

    def _payload(self, encoded: Encoded) -> Payload:
        # It may ask the planner how large a value may be, which the body itself may not.
        token = current_body.set(None)
        try:
            return self._payload_of(encoded)
        finally:
            current_body.reset(token)

    def _upstream_of(self, after: Sequence[object]) -> set[int]:
        numbers: set[int] = set()
        for entry in after:
            if type(entry) is OutputPlaceholder or type(entry) is StepFuture:
                numbers.add(entry.number)
            elif isinstance(entry, str) and entry in self._numbers:
                numbers.add(self._numbers[entry])
            elif isinstance(entry, Step) and entry.name in self._latest:
                numbers.add(self._latest[entry.name])
            elif type(entry) in (list, tuple, set):
                numbers |= self._upstream_of(tuple(entry))  # type: ignore[arg-type]
            else:
                raise unknown_after(entry, self._numbers)
        return numbers

    def _only_in_flows(self, what: str) -> ContextError:
        return ContextError(
            f"{what} in pipeline {self._pipeline!r}: its body only draws the graph, and nothing runs "
            "meanwhile; use @flow",
            reason="INSIDE_PIPELINE",
        )


def _holds_stand_in(value: Any, seen: set[int]) -> bool:
    if id(value) in seen:
        return False
    seen.add(id(value))
    for item in value.values() if type(value) is dict else value:
        if type(item) in (OutputPlaceholder, Parameter, StepFuture):
            return True
        if type(item) in _CONTAINERS and _holds_stand_in(item, seen):
            return True
    return False
