"""What is known of the inputs of a call, so that a call can be compared with the recorded one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

Source: TypeAlias = tuple[int, str]
"""An output: the number of its call, and its name. Number 0 stands for the flow's own inputs."""

FLOW_INPUT = 0


class Comparison(StrEnum):
    """What two fingerprints say of their values."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class Fingerprint(NamedTuple):
    """One input. A named tuple, as are a replay's calls: it makes two of these for each, and they are made faster.

    Attributes:
        digest: Of the value; empty where it is not known.
        canonical: Whether equal values have equal digests.
        sources: The outputs that the value could be; empty for a plain value.
        parts: Those of the elements, for a list, tuple or dict that contains outputs.
    """

    digest: bytes = b""
    canonical: bool = False
    sources: frozenset[Source] = frozenset()
    parts: tuple[tuple[str, Fingerprint], ...] = ()

    def all_sources(self) -> Iterator[Source]:
        """Yield every output that the value is or contains."""
        yield from self.sources
        for _, part in self.parts:
            yield from part.all_sources()


Inputs: TypeAlias = Mapping[str, Fingerprint]


def compare(recorded: Fingerprint, made: Fingerprint, changed_inputs: frozenset[str]) -> Comparison:
    """Compare by digest where that proves something, otherwise by where the values come from.

    Args:
        recorded: As it is recorded.
        made: As it is now.
        changed_inputs: The flow inputs that are overridden, whose names therefore prove no equality.
    """
    if recorded.digest and recorded.digest == made.digest:
        return Comparison.SAME
    if recorded.digest and made.digest and recorded.canonical and made.canonical:
        return Comparison.DIFFERENT
    if recorded.parts and made.parts:
        return _compare_parts(recorded.parts, made.parts, changed_inputs)
    if not recorded.sources or not made.sources:
        return Comparison.UNKNOWN
    if any(number == FLOW_INPUT and name in changed_inputs for number, name in made.sources):
        return Comparison.DIFFERENT
    return Comparison.DIFFERENT if recorded.sources.isdisjoint(made.sources) else Comparison.SAME


def differing_inputs(recorded: Inputs, made: Inputs, changed_inputs: frozenset[str]) -> dict[str, Comparison]:
    """Return the inputs that are not known to be the same; one that only one side has is different."""
    found: dict[str, Comparison] = {}
    for name, before in recorded.items():
        now = made.get(name)
        comparison = Comparison.DIFFERENT if now is None else compare(before, now, changed_inputs)
        if comparison is not Comparison.SAME:
            found[name] = comparison
    for name in made:
        if name not in recorded:
            found[name] = Comparison.DIFFERENT
    return found


def _compare_parts(
    recorded: tuple[tuple[str, Fingerprint], ...],
    made: tuple[tuple[str, Fingerprint], ...],
    changed_inputs: frozenset[str],
) -> Comparison:
    if [key for key, _ in recorded] != [key for key, _ in made]:
        return Comparison.DIFFERENT
    found = {compare(before, now, changed_inputs) for (_, before), (_, now) in zip(recorded, made, strict=True)}
    for comparison in (Comparison.DIFFERENT, Comparison.UNKNOWN):
        if comparison in found:
            return comparison
    return Comparison.SAME
