"""A script's own process as an executor, for the code that it defines.

With the local engine that is all its code; with a planner elsewhere only what the script itself defines
(`__main__`), which no worker could import. The process starts a stream process, which talks to the planner,
and runs the code in threads of its own; what it starts is pinned to the code that it has.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dalsegno.decorators import Decorated, decorated_objects
from dalsegno.errors import BackendError, UsageError

if TYPE_CHECKING:
    from dalsegno.client.connection import Connection
    from dalsegno_executor.runner.embedded import EmbeddedRunner

STEP_THREADS = max(4, os.cpu_count() or 1)
BODY_THREADS = 16


def runs_here(connection: Connection, decorated: Decorated[..., Any]) -> bool:
    """Return whether this process runs the code of a definition itself."""
    return connection.is_local_engine or decorated.function.__module__ == "__main__"


def join(connection: Connection) -> None:
    """Let this process run its code for a planner; announces what has been defined since the last time.

    Raises:
        BackendError: If the stream process cannot be started.
    """
    key = (connection.address, connection.project)
    with _lock:
        joined = _joined.get(key)
        if joined is None or not joined.is_alive():
            joined = _joined[key] = _Joined(*key)
            _at_exit()
        joined.announce([one for one in decorated_objects() if runs_here(connection, one)])


def has_joined(connection: Connection) -> bool:
    """Return whether this process runs code for a planner, which may take a moment to hear of it."""
    with _lock:
        joined = _joined.get((connection.address, connection.project))
        return joined is not None and joined.is_alive()


class _Joined:
    """This process, joined to one planner in one project."""

    def __init__(self, address: str, project: str) -> None:
        runner_class = _embedded_runner()
        self._announced: weakref.WeakSet[Decorated[..., Any]] = weakref.WeakSet()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = stream_process(theirs, address, project)
        self._runner: EmbeddedRunner = runner_class(self._socket, step_threads=STEP_THREADS, body_threads=BODY_THREADS)
        self._runner.start()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def announce(self, decorated: list[Decorated[..., Any]]) -> None:
        new = [one for one in decorated if one not in self._announced]
        if new:
            self._runner.announce(new)
            self._announced.update(new)

    def close(self) -> None:
        self._runner.close()
        # It reads the end of file, hands in what it still has, and ends by itself; nobody has to wait for it.
        self._process.returncode = 0

    def abandon(self) -> None:
        # In a forked child: the parent's stream process must see the end of file when the parent ends.
        self._socket.close()
        self._process.returncode = 0


_lock = threading.Lock()
_joined: dict[tuple[str, str], _Joined] = {}
_registered = False


def _at_exit() -> None:
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_leave)
        os.register_at_fork(after_in_child=_forget)


def _leave() -> None:
    with _lock:
        while _joined:
            _joined.popitem()[1].close()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    while _joined:
        _joined.popitem()[1].abandon()


def _embedded_runner() -> type[EmbeddedRunner]:
    try:
        from dalsegno_executor.runner.embedded import EmbeddedRunner
    except ImportError as error:
        raise executor_missing(error) from error
    return EmbeddedRunner


def executor_missing(error: ImportError) -> UsageError:
    """Return the error for an installation that cannot run code."""
    return UsageError(
        f"running a flow in this process needs the executor, and a part of it is missing ({error}): pip "
        "install 'dalsegno[executor]'",
        reason="MISSING_LIBRARY",
    )


def stream_process(theirs: socket.socket, address: str, project: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the stream process of this process, which gets the other end of a socket pair.

    Raises:
        BackendError: If it cannot be started.
    """
    arguments = [
        *(sys.executable, "-P", "-m", "dalsegno_executor.attach"),
        *("--fd", str(theirs.fileno()), "--address", address, "--project", project, *options),
    ]
    try:
        # A group of its own, so that an interrupt from the keyboard reaches the script first.
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            process_group=0,
        )
    except OSError as error:
        raise BackendError(f"cannot start the stream process: {error}", reason="EXECUTOR") from error
