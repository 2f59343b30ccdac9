"""A runner inside a process that is not ours: a script that runs the flows and steps that it defines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

from dalsegno.decorators import Decorated
from dalsegno_executor.runner.channel import Channel
from dalsegno_executor.runner.engine import Runner


class EmbeddedRunner:
    """A runner in threads of this process, none of which keeps the process alive.

    Args:
        sock: This process's end of a socket pair, whose other end a stream process has.
        step_threads: How many steps run at a time.
        body_threads: How many flow bodies run at a time.
    """

    def __init__(self, sock: socket.socket, *, step_threads: int, body_threads: int) -> None:
        self._channel = Channel(sock)
        self._runner = Runner(self._channel, body_threads=body_threads)
        self._step_threads = step_threads
        self._body_threads = body_threads
        self._reader = threading.Thread(target=self._serve, name="dalsegno-runner", daemon=True)
        self.closed = threading.Event()
        """Set when the stream process is gone, or `close` was called."""

    def start(self) -> None:
        """Start the threads, and take tasks for what is announced."""
        self._runner.steps.start(self._step_threads)
        self._reader.start()
        self._runner.offer(self._step_threads, self._body_threads)

    def announce(self, definitions: Sequence[Decorated[..., Any]]) -> None:
        """Say which flows, pipelines and steps this process has; what it said before stays."""
        self._runner.announce(definitions)

    def close(self) -> None:
        """Leave: what runs is given up, and goes to others that have its code."""
        self._channel.close()
        if self._reader.is_alive() and self._reader is not threading.current_thread():
            self._reader.join(timeout=5)

    def _serve(self) -> None:
        try:
            self._runner.serve()
        finally:
            self.closed.set()
