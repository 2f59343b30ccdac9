"""This process as the executor of one replay, whose code runs in the calling thread: breakpoints work.

The replay is pinned to a name that nobody but this process announces, so that no other executor takes anything of it.
The stream process keeps the lease alive, however long somebody stays in a debugger, and does not enforce timeouts.
"""

from __future__ import annotations

import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dalsegno.decorators import decorated_objects
from dalsegno.errors import BackendError
from dalsegno.local.join import executor_missing, stream_process

if TYPE_CHECKING:
    from dalsegno.client.connection import Connection
    from dalsegno_executor.runner.inline import InlineRunner

_SECONDS_TO_LEAVE = 5.0


class DebugSession:
    """A joined process, for as long as the replay runs.

    Attributes:
        pin: What the replay's code is to be pinned to, in place of a digest.
    """

    def __init__(self, runner: InlineRunner, pin: str) -> None:
        self.pin = pin
        self._runner = runner

    def run_until(self, done: Callable[[], bool]) -> None:
        """Run the tasks of the replay in this thread until a condition holds; `wake` has it looked at.

        Raises:
            BackendError: If the stream process has ended before.
            KeyboardInterrupt: If the user interrupts what runs.
        """
        self._runner.run_until(done)
        if not done():
            raise BackendError(
                "the stream process of the debugged replay has ended; its planner may have refused it",
                reason="EXECUTOR",
            )

    def wake(self) -> None:
        """Have `run_until` look at its condition; from any thread."""
        self._runner.poke()


@contextmanager
def debug_session(connection: Connection) -> Iterator[DebugSession]:
    """Join a planner for one replay.

    Raises:
        BackendError: If the stream process cannot be started.
    """
    try:
        from dalsegno_executor.runner.inline import InlineRunner
    except ImportError as error:
        raise executor_missing(error) from error
    pin = f"debug-{uuid.uuid4().hex}"
    ours, theirs = socket.socketpair()
    with theirs:
        process = stream_process(theirs, connection.address, connection.project, "--patient")
    runner = InlineRunner(ours, pin, _say_that_it_waits)
    try:
        runner.start()
        runner.announce(decorated_objects())
        yield DebugSession(runner, pin)
    finally:
        runner.close()
        # It reads the end of file, hands in what it still has, and ends.
        process.wait(_SECONDS_TO_LEAVE)


def _say_that_it_waits() -> None:
    sys.stderr.write(
        "dalsegno: the replay waits for an answer, and goes on here when it has one; from another terminal: "
        "dalsegno executions input ID --interactive\n"
    )
    sys.stderr.flush()
