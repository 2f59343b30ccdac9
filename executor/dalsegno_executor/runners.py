"""Runner processes: started with one end of a socket pair, watched, killed with all that they have started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

_SOCKET_BUFFER = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunnerCommand:
    """What runner processes run.

    Attributes:
        target: The module or file.
        steps: How many steps one runs at a time.
        bodies: How many flow bodies one runs at a time.
    """

    target: str
    steps: int
    bodies: int


class RunnerProcess:
    """A process, in a process group of its own."""

    def __init__(self, command: RunnerCommand) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dalsegno_executor.runner", command.target),
                    *("--fd", str(theirs.fileno()), "--parent", str(os.getpid())),
                    *("--steps", str(command.steps), "--bodies", str(command.bodies)),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        self.socket = ours
        self._pidfd: int | None = None

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call a function on the running loop when the process has ended.

        A closed socket is not enough of a sign: a child of the process may have it still.
        """
        loop = asyncio.get_running_loop()
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(self.pid)
            loop.add_reader(self._pidfd, on_exit)
        else:
            threading.Thread(target=self._wait_and_call, args=(loop, on_exit), daemon=True).start()

    def kill(self) -> None:
        """Kill the process and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Kill what is left of the group and return the exit code, negative for a signal."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if self._process.returncode is None:
            # Before it is reaped: its ID is not given to another process until then.
            self.kill()
        return self._process.wait()

    def _wait_and_call(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(on_exit)


def describe_exit(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
