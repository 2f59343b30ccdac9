"""What is wrong with a record, and where."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from dalsegno.errors import Problem, UsageError

MOST_PROBLEMS = 25


class Misfit(Exception):
    """Some part of a record is wrong; whoever knows where that part is adds to the path."""

    def __init__(self, description: str, path: str = "") -> None:
        super().__init__(description)
        self.description = description
        self.path = path

    def inside(self, step: str) -> Misfit:
        """Return the same, seen from outside."""
        return Misfit(self.description, step + self.path)


def unknown_key(keys: Iterable[str], known: Collection[str]) -> Misfit | None:
    """Return what is wrong with the first key that is not known."""
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
            return Misfit(f"is no key that is known here; {hint}", f".{key}")
    return None


def refusal(problems: Iterable[Problem]) -> UsageError:
    """Return the error for a record that cannot be imported."""
    return UsageError(
        "the record is wrong; nothing was imported", reason="INVALID_RECORD", problems=list(problems)[:MOST_PROBLEMS]
    )
