"""In which order the calls of an ``async def`` body hand it their values.

The order in which a body receives values decides which call it makes next, and so how its calls are numbered. Were it
left to how long steps happen to take, a body of several tasks would not repeat itself. So values are handed out in the
order in which the body began to wait for them, and each only once the body has done all that the one before it made
possible: when its loop has nothing left to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

_Arguments = TypeVarTuple("_Arguments")

_MOST_TURNS_OF_THE_LOOP = 1000
"""Then a loop counts as idle: user code that never lets it come to rest must not hold everything up."""


class BodyLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what is scheduled on it, so that it can be told whether it is at rest."""

    scheduled = 0

    def call_soon(
        self,
        callback: Callable[[Unpack[_Arguments]], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a callback, and count it."""
        self.scheduled += 1
        return super().call_soon(callback, *args, context=context)


class Turn:
    """One place in the line."""

    __slots__ = ("future", "ready")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.ready = False


class Turns:
    """The line of those who wait for values."""

    def __init__(self, loop: BodyLoop) -> None:
        self._loop = loop
        self._line: deque[Turn] = deque()
        self._settling = False
        self._seen = 0
        self._hops = 0

    def join(self) -> Turn:
        """Take a place at the end of the line."""
        turn = Turn(self._loop.create_future())
        self._line.append(turn)
        return turn

    async def take(self, turn: Turn) -> None:
        """Say that the value is there, and wait for the turn."""
        turn.ready = True
        self._settle()
        await turn.future

    def leave(self, turn: Turn) -> None:
        """Give up a place; no harm where the turn has come."""
        if turn in self._line:
            self._line.remove(turn)
            self._settle()

    def _settle(self) -> None:
        if not self._settling and self._line and self._line[0].ready:
            self._settling = True
            self._hops = 0
            self._look_again()

    def _look_again(self) -> None:
        self._loop.call_soon(self._look)
        self._seen = self._loop.scheduled

    def _look(self) -> None:
        self._hops += 1
        if self._loop.scheduled != self._seen and self._hops < _MOST_TURNS_OF_THE_LOOP:
            self._look_again()
            return
        self._settling = False
        if self._line and self._line[0].ready:
            turn = self._line.popleft()
            if not turn.future.done():
                turn.future.set_result(None)
            self._settle()
