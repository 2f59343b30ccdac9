"""Readable IDs of invocations: `train`, `train_2`, … in call order, or the caller's own."""

from __future__ import annotations

from dalsegno.errors import UsageError


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
            UsageError: If the caller's own ID is taken.
        """
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
