"""Readable IDs of invocations: `train`, `train_2`, … in call order, or the caller's own."""

from __future__ import annotations

import re

from dalsegno.errors import UsageError

_ID = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_SHOWN = 40


class InvocationIds:
    """Gives each invocation of one execution an ID of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def give(self, name: str, explicit: str | None = None) -> str:
        """Return the ID of the next invocation.

        A numbered ID that is taken moves on to the next free number.

        Args:
            name: The name of the step or wait.
            explicit: The caller's own ID.

        Raises:
            UsageError: If the caller's own ID is taken, or it or the name cannot be one.
        """
        if _ID.fullmatch(given := name if explicit is None else explicit) is None:
            shown = given if len(given) <= _SHOWN else given[:_SHOWN] + "…"
            raise UsageError(
                f"{shown!r} ({len(given):,} characters) cannot be an invocation ID or the name of a wait: "
                "give 1 to 200 characters that print",
                reason="INVALID_ID",
                fields={"invocation_id": shown},
            )
        if explicit is not None and explicit in self._taken:
            raise UsageError(
                f"the invocation ID {explicit!r} is taken already in this execution; give each call its own id=",
                reason="DUPLICATE_ID",
                fields={"invocation_id": explicit},
            )
        invocation_id = explicit if explicit is not None else self._free(name)
        self._taken.add(invocation_id)
        return invocation_id

    def _free(self, name: str) -> str:
        number = self._next.get(name, 1)
        while (candidate := name if number == 1 else f"{name}_{number}") in self._taken:
            number += 1
        self._next[name] = number + 1
        return candidate
