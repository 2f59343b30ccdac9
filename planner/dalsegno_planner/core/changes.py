"""Today's graph of a pipeline against the recorded one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """What a reused step must still have, in terms of invocation IDs, so that two graphs can be compared.

    Attributes:
        takes: Invocation ID and name of each output that its inputs take.
        after: The invocation IDs that it comes after besides.
    """

    name: str
    outputs: tuple[str, ...]
    takes: frozenset[tuple[str, str]]
    after: frozenset[str]


def differences(recorded: Mapping[str, Shape], today: Mapping[str, Shape], reused: Iterable[str]) -> list[str]:
    """How today's graph differs in what is reused; empty where it does not."""
    found: list[str] = []
    for invocation_id in reused:
        now = today.get(invocation_id)
        if now is None:
            found.append(f"{invocation_id} is reused, and exists no more")
        else:
            found.extend(_changes(invocation_id, recorded[invocation_id], now))
    return found


def _changes(invocation_id: str, was: Shape, now: Shape) -> Iterable[str]:
    if was.name != now.name:
        yield f"{invocation_id} is reused, and was step {was.name!r} where it is {now.name!r} now"
    if was.outputs != now.outputs:
        yield (
            f"{invocation_id} is reused, and had the outputs {', '.join(was.outputs)} where it has "
            f"{', '.join(now.outputs)} now"
        )
    if was.takes != now.takes:
        yield f"{invocation_id} is reused, and took {_taken(was)} where it takes {_taken(now)} now"
    if was.after != now.after:
        yield f"{invocation_id} is reused, and came after {_named(was)} where it comes after {_named(now)} now"


def _taken(shape: Shape) -> str:
    return ", ".join(f"{one}.{output}" for one, output in sorted(shape.takes)) or "no output"


def _named(shape: Shape) -> str:
    return ", ".join(sorted(shape.after)) or "nothing"
