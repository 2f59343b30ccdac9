"""Inputs of invocations: what they refer to, and what becomes of them when one is replaced or numbers change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from dalsegno.v1.value_pb2 import Binding, Inputs, OutputRef, Outputs, Payload


@dataclass(frozen=True, slots=True)
class References:
    """What inputs refer to: outputs by number and name, and flow inputs."""

    outputs: frozenset[tuple[int, str]]
    flow_inputs: frozenset[str]

    @property
    def numbers(self) -> frozenset[int]:
        """The invocations whose outputs are taken."""
        return frozenset(number for number, _ in self.outputs)


def leaves(*bindings: Binding) -> Iterator[tuple[str | None, Binding]]:
    """The bindings inside bindings that are no lists, tuples or dictionaries, with their kinds."""
    pending = list(bindings)
    while pending:
        current = pending.pop()
        kind = current.WhichOneof("kind")
        match kind:
            case "list":
                pending.extend(current.list.items)
            case "tuple":
                pending.extend(current.tuple.items)
            case "map":
                pending.extend(entry.value for entry in current.map.entries)
            case _:
                yield kind, current


def references(inputs: Inputs) -> References:
    """What all inputs of an invocation refer to."""
    outputs: set[tuple[int, str]] = set()
    flow_inputs: set[str] = set()
    for kind, leaf in leaves(*inputs.bindings.values()):
        if kind == "output":
            outputs.update((one.number, one.output) for one in same_object(leaf.output))
        elif kind == "flow_input":
            flow_inputs.add(leaf.flow_input)
    return References(frozenset(outputs), frozenset(flow_inputs))


def same_object(reference: OutputRef) -> Iterator[OutputRef]:
    """A reference and its alternatives."""
    yield reference
    for alternative in reference.alternatives:
        yield from same_object(alternative)


def with_values(inputs: Inputs, values: Mapping[str, Payload]) -> Inputs:
    """The inputs with some of them replaced by plain values."""
    replaced = Inputs()
    replaced.CopyFrom(inputs)
    for name, payload in values.items():
        replaced.bindings[name].CopyFrom(Binding(value=payload, digest=payload.digest, canonical=payload.canonical))
    return replaced


def fill_in(inputs: Inputs, taken: Mapping[int, Outputs]) -> None:
    """Put values in the place of references to outputs, by the numbers of the invocations; others stay."""
    for kind, leaf in leaves(*inputs.bindings.values()):
        if kind != "output":
            continue
        for output in taken.get(leaf.output.number, Outputs()).outputs:
            if output.name == leaf.output.output:
                leaf.value.CopyFrom(output.payload)
                leaf.digest, leaf.canonical = output.payload.digest, output.payload.canonical


def order(inputs: Inputs, after: Iterable[int]) -> tuple[list[int], list[int]]:
    """What a step with these inputs has upstream, and which of that it comes after without taking anything from it."""
    taken = references(inputs).numbers
    alone = ({*after} | {*inputs.comes_after}) - taken
    return sorted(taken | alone), sorted(alone)


def renumber(binding: Binding, number_of: Callable[[int], int]) -> None:
    """Change the numbers that a binding refers to, in place."""
    for kind, leaf in leaves(binding):
        if kind == "output":
            for reference in same_object(leaf.output):
                reference.number = number_of(reference.number)
