"""Where an argument comes from: which outputs of earlier calls it is, or contains, by identity.

A body receives every output as an object of its own, so the object's identity says which output it is, also
inside lists, tuples and dicts. Two things blur this, and both are met here: one object may be several outputs
(`True`, small integers, interned strings), and a body may change an object that it received.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from dalsegno.arguments import Arguments, bind_arguments
from dalsegno.durable import StepFuture
from dalsegno.errors import UsageError
from dalsegno.payloads import inline_payload
from dalsegno.values import Encoded, encode

if TYPE_CHECKING:
    from dalsegno.v1.value_pb2 import Binding, Inputs, Payload

__all__ = ["Arguments", "Origin", "Parts", "Provenance", "Traced", "bind_arguments", "fill_inputs", "inputs_message"]

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


class Origin(NamedTuple):
    """What one object is known to be: outputs of calls, or else an input of the flow."""

    value: object
    digest: bytes
    canonical: bool
    outputs: tuple[tuple[int, str], ...]
    flow_input: str | None

    def joined_with(self, other: Origin, implied: frozenset[int]) -> Origin:
        """Return the origin that is both; `implied` calls are upstream of the other one, so that no edge is lost."""
        kept = tuple(output for output in self.outputs if output not in other.outputs and output[0] not in implied)
        outputs = (kept + other.outputs)[-_MOST_ORIGINS:]
        return Origin(self.value, self.digest, self.canonical, outputs, self.flow_input or other.flow_input)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a list, tuple or dict is that contains outputs.

    Attributes:
        kind: The field of a `Binding` that says so: ``list``, ``tuple`` or ``map``.
        keys: Of a dict, its keys; those that are no strings are encoded.
        items: What the elements are.
        digest: That of the whole value, so that it does not depend on which parts are known as outputs.
    """

    kind: str
    keys: tuple[str | Encoded, ...]
    items: tuple[Traced, ...]
    digest: bytes
    canonical: bool


Traced: TypeAlias = "Origin | Parts | Payload | Binding"
"""What an argument is. A plain value is a payload; a binding is one that was made elsewhere, as for an override."""


class Provenance:
    """What one body has received, and what its arguments therefore are.

    Args:
        payload_of: Turns an encoded plain value into a payload, storing it where it is large; inline where
            none is given.
    """

    def __init__(self, payload_of: Callable[[Encoded], Payload] = inline_payload) -> None:
        self._payload_of = payload_of
        # The origins hold their objects, so that no identity is given to another object meanwhile.
        self._origins: dict[int, Origin] = {}
        self._calls: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        self._upstream: dict[int, set[int]] = {}

    def record(self, value: object, number: int, output: str, payload_digest: bytes, canonical: bool) -> None:
        """Note that `value` is what the body received as an output of call `number`."""
        self._note(Origin(value, payload_digest, canonical, ((number, output),), None))

    def record_flow_input(self, value: object, name: str, payload_digest: bytes, canonical: bool) -> None:
        """Note that `value` is what the body received as its argument `name`."""
        self._note(Origin(value, payload_digest, canonical, (), name))

    def record_call(self, number: int, name: str, invocation_id: str, inputs: Mapping[str, Traced]) -> None:
        """Note that a call was made with these inputs, so that ``after=`` can name it."""
        self._upstream[number] = _numbers_in(inputs.values())
        self._calls[invocation_id] = number
        self._latest[name] = number

    def trace(self, arguments: Arguments) -> dict[str, Traced]:
        """Return what a call's arguments are; defaults that were not passed carry no edge.

        It stays as it is, whatever the body does to the arguments afterwards.

        Raises:
            UsageError: If a value has no codec, naming the parameter.
        """
        inputs: dict[str, Traced] = {}
        for name, value in arguments.items():
            try:
                inputs[name] = self._plain(value) if name in arguments.defaulted else self.traced(value)
            except UsageError as error:
                raise _in_parameter(error, name) from error
        return inputs

    def traced(self, value: object) -> Traced:
        """Return what a value is, with the digest of what was passed.

        Raises:
            UsageError: If it has no codec, or is the future of a call.
        """
        if isinstance(value, StepFuture):
            raise UsageError(
                f"{value!r} is a future, not its value; pass future.result(), or name it in after= for the order alone",
                reason="FUTURE_AS_ARGUMENT",
            )
        origin = self._origin_of(value)
        if origin is not None:
            return origin
        if type(value) in _CONTAINERS and self._holds_origin(value, set()):
            return self._parts(value)
        return self._plain(value)

    def upstream_of(self, after: Iterable[object]) -> tuple[int, ...]:
        """Return the numbers of the calls that ``after=`` names.

        Each entry is an output that the body received, a future, an invocation ID, a step, which stands for
        its latest call, or a list of these.

        Raises:
            UsageError: If an entry names no earlier call.
        """
        return tuple(sorted({number for entry in after for number in self._numbers_of(entry)})) if after else ()

    def _note(self, origin: Origin) -> None:
        if origin.value is None:
            return
        known = self._origins.get(id(origin.value))
        if known is not None:
            implied = frozenset[int]().union(*(self._upstream.get(n, ()) for n, _ in origin.outputs))
            origin = known.joined_with(origin, implied)
        self._origins[id(origin.value)] = origin

    def _origin_of(self, value: object) -> Origin | None:
        origin = self._origins.get(id(value))
        if origin is None or type(value) in _IMMUTABLE:
            return origin
        # The body may have changed what it received. It is passed on as what it is now.
        return origin if encode(value).digest == origin.digest else None

    def _holds_origin(self, value: Any, seen: set[int]) -> bool:
        if id(value) in seen:
            return False
        seen.add(id(value))
        known = self._origins
        for item in value.values() if type(value) is dict else value:
            if id(item) in known or type(item) is StepFuture:
                return True
            if type(item) in _CONTAINERS and self._holds_origin(item, seen):
                return True
        return False

    def _parts(self, value: Any) -> Parts:
        if type(value) is dict:
            kind, items = "map", tuple(map(self.traced, value.values()))
            keys = tuple(key if type(key) is str else encode(key) for key in value)
        else:
            kind, items, keys = type(value).__name__, tuple(map(self.traced, value)), ()
        encoded = encode(value)
        return Parts(kind, keys, items, encoded.digest, encoded.canonical)

    def _plain(self, value: object) -> Payload:
        return self._payload_of(encode(value))

    def _numbers_of(self, entry: object) -> Sequence[int]:
        if isinstance(entry, StepFuture):
            return (entry.number,)
        origin = self._origins.get(id(entry))
        if origin is not None and origin.outputs:
            return tuple(number for number, _ in origin.outputs)
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


def inputs_message(inputs: Mapping[str, Traced]) -> Inputs:
    """Return inputs as they are reported."""
    from dalsegno.v1.value_pb2 import Inputs

    message = Inputs()
    fill_inputs(message, inputs)
    return message


def fill_inputs(message: Inputs, inputs: Mapping[str, Traced]) -> None:
    """Put inputs into a message, as they are reported."""
    bindings = message.bindings
    for name, traced in inputs.items():
        _fill(bindings[name], traced)


def _fill(binding: Binding, traced: Traced) -> None:
    if isinstance(traced, Origin):
        binding.digest, binding.canonical = traced.digest, traced.canonical
        _fill_origin(binding, traced)
    elif isinstance(traced, Parts):
        binding.digest, binding.canonical = traced.digest, traced.canonical
        _fill_parts(binding, traced)
    elif traced.DESCRIPTOR is binding.DESCRIPTOR:
        binding.MergeFrom(cast("Binding", traced))
    else:
        binding.value.MergeFrom(cast("Payload", traced))
        binding.digest, binding.canonical = traced.digest, traced.canonical


def _fill_origin(binding: Binding, origin: Origin) -> None:
    if not origin.outputs:
        assert origin.flow_input is not None
        binding.flow_input = origin.flow_input
        return
    # The latest call is the likeliest origin; the others are kept, as each of them is an edge.
    *others, (number, output) = origin.outputs
    binding.output.number, binding.output.output = number, output
    for other, name in others:
        binding.output.alternatives.add(number=other, output=name)


def _fill_parts(binding: Binding, parts: Parts) -> None:
    if parts.kind == "map":
        for key, item in zip(parts.keys, parts.items, strict=True):
            entry = binding.map.entries.add()
            if isinstance(key, str):
                entry.text = key
            else:
                entry.encoded.CopyFrom(inline_payload(key))
            _fill(entry.value, item)
        return
    items = binding.list.items if parts.kind == "list" else binding.tuple.items
    for item in parts.items:
        _fill(items.add(), item)


def _numbers_in(inputs: Iterable[Traced]) -> set[int]:
    found: set[int] = set()
    for traced in inputs:
        if isinstance(traced, Origin):
            found.update([number for number, _ in traced.outputs])
        elif isinstance(traced, Parts):
            found |= _numbers_in(traced.items)
    return found


def _in_parameter(error: UsageError, name: str) -> UsageError:
    return UsageError(
        f"argument {name!r}: {error.message}",
        reason=error.reason,
        fields={**error.fields, "parameter": name},
        problems=error.problems,
    )
