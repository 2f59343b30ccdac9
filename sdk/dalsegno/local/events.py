"""The supervisor's only place to wait: signals, children that end, and what the planner says."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import IO, Any, Self

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Events:
    """Signal handlers for the lifetime of a ``with`` block, in the main thread."""

    def __init__(self) -> None:
        self.stop_requested = False
        self._selector = selectors.DefaultSelector()
        self._previous: dict[signal.Signals, Any] = {}
        self._wakeup, self._woken = socket.socketpair()
        self._previous_wakeup = -1

    def __enter__(self) -> Self:
        for end in (self._wakeup, self._woken):
            end.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        for number in _STOPPING:
            self._previous[number] = signal.signal(number, self._request_stop)
        # Needed for the wake-up alone: a signal without a handler of ours writes nothing.
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._selector.close()
        self._wakeup.close()
        self._woken.close()

    def wait(self, timeout_s: float) -> None:
        """Returns after a signal, the end of a child, output on a watched file, or ``timeout_s``."""
        if self.stop_requested:
            return
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def watch(self, file: IO[bytes], readable: Callable[[], None]) -> None:
        """Calls ``readable`` within ``wait`` whenever there is something to read."""
        self._selector.register(file, selectors.EVENT_READ, readable)

    def unwatch(self, file: IO[bytes]) -> None:
        """Stops watching."""
        self._selector.unregister(file)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True

    def _drain(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return
