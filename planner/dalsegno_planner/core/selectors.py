"""Selectors: how a request names invocations of the execution that it replays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from dalsegno_planner.core import problems
from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.ids import CallId, InvocationId, Number
from dalsegno_planner.core.problems import Problem


class SelectorKind(StrEnum):
    """What a selector's text is looked up as."""

    ANY = "any"
    NAME = "name"
    INVOCATION = "invocation"
    CALL = "call"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector; `text` is what was written."""

    kind: SelectorKind
    value: str
    text: str

    @property
    def call_id(self) -> UUID | None:
        """The call ID that it may mean."""
        if self.kind not in (SelectorKind.ANY, SelectorKind.CALL):
            return None
        try:
            return UUID(self.value)
        except ValueError:
            return None

    @property
    def part_of_call_id(self) -> str | None:
        """The digits of a call ID that it may begin or end with."""
        if self.kind not in (SelectorKind.ANY, SelectorKind.CALL):
            return None
        return digits if _PART.fullmatch(digits := self.value.lower().replace("-", "")) else None

    @property
    def name(self) -> str | None:
        """The step name that it may mean."""
        return self.value if self.kind in (SelectorKind.ANY, SelectorKind.NAME, SelectorKind.ALL) else None

    @property
    def invocation_id(self) -> str | None:
        """The invocation ID that it may mean."""
        return self.value if self.kind in (SelectorKind.ANY, SelectorKind.INVOCATION) else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An invocation that a selector may mean."""

    number: Number
    invocation_id: InvocationId
    name: str
    kind: InvocationKind
    call_id: CallId


_PART = re.compile("[0-9a-f]{4,31}")

_PREFIXES = {f"{kind.value}:": kind for kind in SelectorKind if kind is not SelectorKind.ANY}

SHOWN_CANDIDATES = 20
"""How many candidates of an ambiguous selector are listed."""


def parse_selector(text: str, field: str) -> Selector | Problem:
    """Parse a selector: bare, or after `name:`, `invocation:`, `call:` or `all:`."""
    written = text.strip()
    for prefix, kind in _PREFIXES.items():
        if written.startswith(prefix):
            return _checked(Selector(kind, written.removeprefix(prefix).strip(), written), field)
    return _checked(Selector(SelectorKind.ANY, written, written), field)


def parse_exact(text: str, field: str) -> Selector | Problem:
    """Parse what names invocations exactly: an invocation ID, `invocation:ID`, or `all:NAME` for a step's calls."""
    parsed = parse_selector(text, field)
    if isinstance(parsed, Problem):
        return parsed
    if parsed.kind in (SelectorKind.ANY, SelectorKind.INVOCATION):
        return Selector(SelectorKind.INVOCATION, parsed.value, parsed.text)
    if parsed.kind is SelectorKind.ALL:
        return parsed
    return problems.usage(
        "INVALID_SELECTOR", field, f"{parsed.text!r}: only an invocation ID or all:NAME can be given here"
    )


def matches(selector: Selector, candidate: Candidate) -> bool:
    """Whether a selector may mean an invocation."""
    return (
        selector.name == candidate.name
        or selector.invocation_id == candidate.invocation_id
        or (selector.call_id is not None and selector.call_id == candidate.call_id)
    )


def matches_part(selector: Selector, call: CallId) -> bool:
    """Whether a selector is the beginning or the end of a call's ID."""
    part = selector.part_of_call_id
    return part is not None and (call.hex.startswith(part) or call.hex.endswith(part))


def select(selector: Selector, candidates: Iterable[Candidate], field: str) -> Sequence[Candidate] | Problem:
    """Choose among the invocations of an execution, in the order of their numbers.

    Returns:
        Exactly one, or any number for `all:NAME`; empty where none matches; a problem where it is ambiguous. A part of
        a call ID counts where nothing has that name.
    """
    candidates = sorted(candidates, key=lambda one: one.number)
    found = [one for one in candidates if matches(selector, one)]
    found = found or [one for one in candidates if matches_part(selector, one.call_id)]
    if len(found) > 1 and selector.kind is not SelectorKind.ALL:
        return _ambiguous(selector, found, field)
    return found


def no_match(selector: Selector, available: Collection[str], field: str) -> Problem:
    """The problem of a selector that names nothing."""
    return problems.state("NO_MATCH", field, _nothing(selector, available))


def unknown_invocation(selector: Selector, available: Collection[str], field: str) -> Problem:
    """The problem of an exact name that names nothing."""
    return problems.usage("UNKNOWN_INVOCATION", field, _nothing(selector, available))


def _checked(selector: Selector, field: str) -> Selector | Problem:
    if selector.value:
        return selector
    return problems.usage(
        "BLANK_SELECTOR",
        field,
        f"{selector.text!r} names nothing; give a step's name, an invocation ID or a call ID",
    )


def _nothing(selector: Selector, available: Collection[str]) -> str:
    what = {
        SelectorKind.ANY: "no step name, invocation ID or call ID",
        SelectorKind.NAME: "no step name",
        SelectorKind.INVOCATION: "no invocation ID",
        SelectorKind.CALL: "no call ID",
        SelectorKind.ALL: "no step name",
    }[selector.kind]
    return f"{what} of the execution is {selector.value!r}; {problems.closest(selector.value, available)}"


def _ambiguous(selector: Selector, found: Sequence[Candidate], field: str) -> Problem:
    listed = "; ".join(
        f"invocation:{one.invocation_id} (step {one.name!r}, call:{one.call_id})" for one in found[:SHOWN_CANDIDATES]
    )
    more = "; …" if len(found) > SHOWN_CANDIDATES else ""
    every = f"; all:{selector.value} means every one" if all(one.name == selector.value for one in found) else ""
    return problems.state(
        "AMBIGUOUS_SELECTOR",
        field,
        f"{selector.text!r} is ambiguous, say which: {listed}{more}{every}",
    )
