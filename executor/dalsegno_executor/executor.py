"""The stream process: the session with the planner and the runners, put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from dalsegno_executor.events import Deliver, DrainAsked, Event, Resolve, Settled, Stop, Welcomed
from dalsegno_executor.fleet import Fleet
from dalsegno_executor.given import Runner
from dalsegno_executor.protocol import Identity, Session
from dalsegno_executor.runners import RunnerCommand
from dalsegno_executor.saying import say
from dalsegno_executor.session import Refused, Stream
from dalsegno_executor.supervision import Supervisor

DONE, KILLED, USAGE = 0, 1, 2
"""Exit codes."""

_SECONDS_FOR_RUNNERS_TO_END = 3.0
_SECONDS_FOR_GOODBYE = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where an executor belongs.

    Attributes:
        address: The planner's, ``host:port`` or ``unix:/path``.
        project: Whose code it has.
        pinned_only: Whether it takes only tasks for exactly its code.
        grace: Seconds that a drain may take.
        quiet: Whether it keeps to itself how the connection fares, as where it serves somebody else's program.
    """

    address: str
    project: str
    pinned_only: bool = False
    grace: float = 30.0
    quiet: bool = False


def new_identity(place: Place) -> Identity:
    """Return the identity of this process."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    return Identity(uuid.uuid4().bytes, name, place.project, place.pinned_only)


class Executor:
    """One stream process.

    Args:
        place: Where it belongs.
        command: What its runner processes run; None where a script has joined as the only runner.
        most_alone: How many processes for single tasks there may be.
    """

    def __init__(self, place: Place, command: RunnerCommand | None, most_alone: int = 0) -> None:
        self._place = place
        self._session = Session(new_identity(place))
        self._stream = Stream(place.address, self._session, self._on_events, self._check_drained, self._say)
        start_alone = self._start_alone if command is not None else None
        self.fleet = Fleet(self._session, self._wake, start_alone, most_alone)
        self.supervisor = Supervisor(self.fleet, self._session, command)
        self._ending = asyncio.Event()
        self._drained = asyncio.Event()
        self._killed = asyncio.Event()

    async def run(self) -> int:
        """Serve the planner until this executor is drained, killed or refused, and return the exit code."""
        tasks: set[asyncio.Task[object]] = {
            asyncio.create_task(self._stream.keep()),
            asyncio.create_task(self.supervisor.look_after()),
            asyncio.create_task(self._drained.wait()),
            asyncio.create_task(self._killed.wait()),
        }
        finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        try:
            code = self._code_of(finished)
            if code == DONE:
                await self._say_goodbye()
            return code
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.end_runners()

    def drain(self, reason: str) -> None:
        """Finish what runs, hand back the rest, and end; the second call ends at once."""
        if self._session.draining:
            self._killed.set()
            return
        self._say(f"{reason}: finishing what runs, handing back the rest")
        self._ending.set()
        self._session.drain()
        self.fleet.drain(reason)
        asyncio.get_running_loop().call_later(self._place.grace, self._killed.set)
        self._check_drained()

    def script_gone(self) -> None:
        """Deliver what the script that joined has done, and end."""
        if not self._session.draining:
            self._session.drain()
            asyncio.get_running_loop().call_later(self._place.grace, self._killed.set)
        self._check_drained()
        self._wake()

    async def told_to_end(self) -> None:
        """Wait until somebody wants this executor to end."""
        await self._ending.wait()

    def drain_on_signals(self, *numbers: signal.Signals) -> None:
        """Drain when one of these signals comes."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self.drain, number.name)

    async def end_runners(self) -> None:
        """End the runners, gently at first."""
        self.supervisor.close()
        if not await self._runners_gone():
            self.supervisor.kill()
            await self._runners_gone()

    def _code_of(self, finished: set[asyncio.Task[object]]) -> int:
        for task in finished:
            error = task.exception()
            if isinstance(error, Refused):
                say(str(error))
                return USAGE
            if error is not None:
                raise error
        return KILLED if self._killed.is_set() and not self._drained.is_set() else DONE

    async def _say_goodbye(self) -> None:
        self._stream.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_FOR_GOODBYE):
                await self._stream.left()

    async def _runners_gone(self) -> bool:
        gone = asyncio.Event()
        on_gone: Callable[[Runner, int], None] = lambda runner, code: self._note_gone(gone)  # noqa: E731
        self.supervisor.on_gone = on_gone
        self._note_gone(gone)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_FOR_RUNNERS_TO_END):
                await gone.wait()
        return gone.is_set()

    def _note_gone(self, gone: asyncio.Event) -> None:
        if not any(runner.process is not None for runner in self.fleet.runners.values()):
            gone.set()

    def _start_alone(self) -> None:
        self.supervisor.start_alone()

    def _wake(self) -> None:
        self._stream.wake()

    def _say(self, text: str) -> None:
        if not self._place.quiet:
            say(text)

    def _check_drained(self) -> None:
        if self._session.draining and self._session.settled:
            self._drained.set()

    def _on_events(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Welcomed():
                    self.fleet.welcome(event.welcome)
                    if event.welcome.HasField("cancel_grace"):
                        self.supervisor.stop_grace = event.welcome.cancel_grace.ToNanoseconds() / 1e9
                    self.fleet.refresh()
                case Deliver():
                    self.fleet.place(event.tasks)
                case Settled():
                    self.fleet.answer(event.runner, event.acks)
                case Resolve():
                    self.fleet.resolve(event.calls)
                case Stop():
                    self.fleet.stop(event.keys, event.reason)
                case DrainAsked():
                    self._say(f"the planner is about to go ({event.reason}); looking for another one")
                    self._stream.leave()
                case _:
                    assert_never(event)
        self._check_drained()
