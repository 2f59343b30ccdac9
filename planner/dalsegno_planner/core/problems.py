"""What can be wrong with a request. Rules return problems, so that all of them can be told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """Which kind of error a problem makes of its request."""

    USAGE = "usage"
    STATE = "state"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where in the request, and what to do."""

    kind: ProblemKind
    reason: str
    field: str
    description: str


def usage(reason: str, field: str, description: str) -> Problem:
    """A problem of the request itself."""
    return Problem(ProblemKind.USAGE, reason, field, description)


def state(reason: str, field: str, description: str) -> Problem:
    """A request that does not fit the state of what it names."""
    return Problem(ProblemKind.STATE, reason, field, description)


def not_found(reason: str, field: str, description: str) -> Problem:
    """A request that names what does not exist."""
    return Problem(ProblemKind.NOT_FOUND, reason, field, description)


def closest(text: str, known: Iterable[str]) -> str:
    """A sentence's end that helps after a typo: the closest names, and what there is."""
    names = sorted(set(known))
    if not names:
        return "there are none"
    close = difflib.get_close_matches(text, names, n=3)
    meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"{meant}there are: {shown}"
