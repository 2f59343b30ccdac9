"""Where an argument comes from: which outputs of earlier calls it is, or contains, by identity.

A body receives every output as an object of its own, so the object's identity says which output it is, also
inside lists, tuples and dicts. Two things blur this, and both are met here: one object may be several outputs
(`True`, small integers, interned strings), and a body may change an object that it received.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dalsegno.arguments import Arguments, bind_arguments
from dalsegno.durable import StepFuture
from dalsegno.errors import UsageError
from dalsegno.payloads import inline_payload
from dalsegno.values import Encoded, encode

if TYPE_CHECKING:
    from dalsegno.v1.value_pb2 import Binding, Inputs, Payload

__all__ = ["Arguments", "Provenance", "bind_arguments"]

_IMMUTABLE = frozenset(
    {
        bool, int, float, complex, str, bytes, range,
        dt.date, dt.datetime, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID,
    }
)  # fmt: skip
_CONTAINERS = frozenset({list, tuple, dict})
_MOST_ORIGINS = 64
"""How many outputs one object is taken to be, the latest first. A flow that makes thousands of calls which all return
True would otherwise record an edge for each pair of them. A call whose true origin is further back is still found
affected when that changes, for the values of inputs are compared as well."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What one object is known to be."""

    value: object
    digest: bytes
    canonical: bool
    outputs: tuple[tuple[int, str], ...]
    flow_input: str | None

    def joined_with(self, other: _Source, implied: frozenset[int]) -> _Source:
        """Return the source that is both; `implied` calls are upstream of the other one, so that no edge is lost."""
        kept = tuple(output for output in self.outputs if output not in other.outputs and output[0] not in implied)
        outputs = (kept + other.outputs)[-_MOST_ORIGINS:]
        return _Source(self.value, self.digest, self.canonical, outputs, self.flow_input or other.flow_input)


class Provenance:
    """What one body has received, and what its arguments therefore are.

    Args:
        payload_of: Turns an encoded plain value into a payload, storing it where it is large; inline where
            none is given.
    """

    def __init__(self, payload_of: Callable[[Encoded], Payload] = inline_payload) -> None:
        self._payload_of = payload_of
        # The sources hold their objects, so that no identity is given to another object meanwhile.
        self._sources: dict[int, _Source] = {}
        self._calls: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        self._upstream: dict[int, frozenset[int]] = {}

    def record(self, value: object, number: int, output: str, payload_digest: bytes, canonical: bool) -> None:
        """Note that `value` is what the body received as an output of call `number`."""
        self._note(_Source(value, payload_digest, canonical, ((number, output),), None))

    def record_flow_input(self, value: object, name: str, payload_digest: bytes, canonical: bool) -> None:
        """Note that `value` is what the body received as its argument `name`."""
        self._note(_Source(value, payload_digest, canonical, (), name))

    def record_call(self, number: int, name: str, invocation_id: str, inputs: Inputs) -> None:
        """Note that a call was made with these inputs, so that ``after=`` can name it."""
        self._upstream[number] = frozenset(_numbers_in(inputs))
        self._calls[invocation_id] = number
        self._latest[name] = number

    def bind_inputs(self, arguments: Arguments) -> Inputs:
        """Return the bindings of a call's arguments; defaults that were not passed carry no edge.

        Raises:
            UsageError: If a value has no codec, naming the parameter.
        """
        from dalsegno.v1.value_pb2 import Inputs

        inputs = Inputs()
        for name, value in arguments.items():
            try:
                binding = self._leaf(value) if name in arguments.defaulted else self.bind(value)
            except UsageError as error:
                raise _in_parameter(error, name) from error
            inputs.bindings[name].CopyFrom(binding)
        return inputs

    def bind(self, value: object) -> Binding:
        """Return where a value comes from, with the digest of what was passed.

        Raises:
            UsageError: If it has no codec, or is the future of a call.
        """
        if isinstance(value, StepFuture):
            raise UsageError(
                f"{value!r} is a future, not its value; pass future.result(), or name it in after= for the order alone",
                reason="FUTURE_AS_ARGUMENT",
            )
        source = self._source_of(value)
        if source is not None:
            return _bound_to(source)
        if type(value) in _CONTAINERS and self._holds_source(value, set()):
            return self._composite(value)
        return self._leaf(value)

    def upstream_of(self, after: Iterable[object]) -> tuple[int, ...]:
        """Return the numbers of the calls that ``after=`` names.

        Each entry is an output that the body received, a future, an invocation ID, a step, which stands for
        its latest call, or a list of these.

        Raises:
            UsageError: If an entry names no earlier call.
        """
        numbers: dict[int, None] = {}
        for entry in after:
            numbers.update(dict.fromkeys(self._numbers_of(entry)))
        return tuple(sorted(numbers))

    def _note(self, source: _Source) -> None:
        if source.value is None:
            return
        known = self._sources.get(id(source.value))
        if known is not None:
            implied = frozenset[int]().union(*(self._upstream.get(n, ()) for n, _ in source.outputs))
            source = known.joined_with(source, implied)
        self._sources[id(source.value)] = source

    def _source_of(self, value: object) -> _Source | None:
        source = self._sources.get(id(value))
        if source is None or type(value) in _IMMUTABLE:
            return source
        # The body may have changed what it received. It is passed on as what it is now.
        return source if encode(value).digest == source.digest else None

    def _holds_source(self, value: Any, seen: set[int]) -> bool:
        if id(value) in seen:
            return False
        seen.add(id(value))
        known = self._sources
        for item in value.values() if type(value) is dict else value:
            if id(item) in known or type(item) is StepFuture:
                return True
            if type(item) in _CONTAINERS and self._holds_source(item, seen):
                return True
        return False

    def _composite(self, value: Any) -> Binding:
        from dalsegno.v1.value_pb2 import Binding

        binding = Binding()
        if type(value) is dict:
            self._bind_entries(binding, value)
        else:
            items = binding.list.items if type(value) is list else binding.tuple.items
            items.extend(self.bind(item) for item in value)
        # The digest is that of the whole value, so that it does not depend on which parts are known as outputs.
        encoded = encode(value)
        binding.digest, binding.canonical = encoded.digest, encoded.canonical
        return binding

    def _bind_entries(self, binding: Binding, value: dict[object, object]) -> None:
        for key, item in value.items():
            entry = binding.map.entries.add(value=self.bind(item))
            if type(key) is str:
                entry.text = key
            else:
                entry.encoded.CopyFrom(inline_payload(encode(key)))

    def _leaf(self, value: object) -> Binding:
        from dalsegno.v1.value_pb2 import Binding

        encoded = encode(value)
        return Binding(value=self._payload_of(encoded), digest=encoded.digest, canonical=encoded.canonical)

    def _numbers_of(self, entry: object) -> Sequence[int]:
        if isinstance(entry, StepFuture):
            return (entry.number,)
        source = self._sources.get(id(entry))
        if source is not None and source.outputs:
            return tuple(number for number, _ in source.outputs)
        if isinstance(entry, str) and entry in self._calls:
            return (self._calls[entry],)
        name = getattr(entry, "name", None)
        if callable(entry) and name in self._latest:
            return (self._latest[name],)
        if type(entry) in (list, tuple, set):
            return self.upstream_of(entry)  # type: ignore[arg-type]
        raise unknown_after(entry, self._calls)


def unknown_after(entry: object, calls: Mapping[str, int]) -> UsageError:
    """Return the error for an entry of ``after=`` that names no earlier call."""
    shown = ", ".join(list(calls)[:20]) or "none"
    return UsageError(
        f"after={entry!r} is no earlier call: give an output that the body received, a future, a step, or an "
        f"invocation ID. Calls so far: {shown}",
        reason="UNKNOWN_AFTER",
    )


def _bound_to(source: _Source) -> Binding:
    from dalsegno.v1.value_pb2 import Binding, OutputRef

    binding = Binding(digest=source.digest, canonical=source.canonical)
    if not source.outputs:
        assert source.flow_input is not None
        binding.flow_input = source.flow_input
        return binding
    # The latest call is the likeliest origin; the others are kept, as each of them is an edge.
    *others, (number, output) = source.outputs
    alternatives = [OutputRef(number=other, output=name) for other, name in others]
    binding.output.CopyFrom(OutputRef(number=number, output=output, alternatives=alternatives))
    return binding


def _numbers_in(inputs: Inputs) -> Iterator[int]:
    pending = list(inputs.bindings.values())
    while pending:
        binding = pending.pop()
        match binding.WhichOneof("kind"):
            case "output":
                yield binding.output.number
                yield from (other.number for other in binding.output.alternatives)
            case "list":
                pending.extend(binding.list.items)
            case "tuple":
                pending.extend(binding.tuple.items)
            case "map":
                pending.extend(entry.value for entry in binding.map.entries)
            case _:
                pass


def _in_parameter(error: UsageError, name: str) -> UsageError:
    return UsageError(
        f"argument {name!r}: {error.message}",
        reason=error.reason,
        fields={**error.fields, "parameter": name},
        problems=error.problems,
    )
