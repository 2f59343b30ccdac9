"""What the code of a step can say and ask while it runs: how far it has come, and whether it is to stop.

Outside of a run on an executor both do nothing, so that a step is still its plain function.
"""

from __future__ import annotations

import datetime as dt
import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from dalsegno.errors import UsageError


class StepCancelled(BaseException):
    """Raised in the code of a step that is to stop: its execution was cancelled, or the step has exceeded its timeout.

    It is no `Exception`, so that only ``finally`` and context managers see it. Code that goes on all the same is ended
    with its process, after a grace period. An ``async def`` step gets `asyncio.CancelledError` instead.
    """


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step had come, by what its code said; ``total`` is None where that is not known."""

    done: float
    total: float | None = None
    message: str = ""
    at: dt.datetime | None = None

    def __str__(self) -> str:
        done = f"{self.done:g}" if self.total is None else f"{self.done:g}/{self.total:g}"
        return f"{done} {self.message}" if self.message else done


class StepContext(Protocol):
    """One run of a step."""

    @property
    def stopped(self) -> bool:
        """Whether it is to stop."""
        ...

    def say_progress(self, done: float, total: float | None, message: str) -> None:
        """Take note of how far it has come."""
        ...


current_step: ContextVar[StepContext | None] = ContextVar("dalsegno_current_step", default=None)
"""The step that runs in this context; ``None`` outside of one."""


def progress(done: float, total: float | None = None, message: str | None = None) -> None:
    """Say how far this step has come. It may be called as often as one likes: what is latest goes with the heartbeats.

    Args:
        done: How much is done, in any unit.
        total: Of how much; None where that is not known.
        message: What is being done, for people.

    Raises:
        UsageError: If `done` or `total` is no number.
    """
    for name, value in (("done", done), ("total", total)):
        if value is not None and not _is_number(value):
            raise UsageError(f"progress({name}={value!r}): give a number", reason="INVALID_PROGRESS")
    step = current_step.get()
    if step is not None:
        step.say_progress(float(done), None if total is None else float(total), "" if message is None else str(message))


def cancelled() -> bool:
    """Return whether this step is to stop: for code that has to look for itself, as where C code runs for long.

    It is False outside of a step.
    """
    step = current_step.get()
    return step is not None and step.stopped


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type] # numpy's numbers too
    except (TypeError, ValueError, OverflowError):
        return False
