"""What user code of a runner has written and is not sent yet."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from dalsegno.v1.executor_service_pb2 import LogLines, WrittenLine
from dalsegno_executor.log_lines import CAPACITY, LogQueue

LONGEST_WAIT = 0.2
"""Seconds. Lines go with the next message; where none is sent for long, they wait no longer than this."""


class LogBuffer:
    """Lines of any thread, bounded, sent with whatever is sent next.

    Args:
        send: Sends what is due.
    """

    def __init__(self, send: Callable[[], object], capacity: int = CAPACITY) -> None:
        self._send = send
        # Reentrant, as a finaliser may print while a line is added.
        self._lock = threading.RLock()
        self._queue = LogQueue(capacity)
        self._due: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._is_due = False

    def __bool__(self) -> bool:
        return bool(self._queue)

    def start(self) -> None:
        """Send what no other message takes along, in a thread of its own."""
        threading.Thread(target=self._send_now_and_then, name="dalsegno-log", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._due.put(False)

    def keep(self, line: WrittenLine) -> None:
        """Add a line."""
        with self._lock:
            self._queue.add([line])
            self.set_due()

    def set_due(self) -> None:
        """Have something sent before long."""
        with self._lock:
            if not self._is_due:
                # In this order: code that is stopped between the two has something sent once too often.
                self._due.put(True)
                self._is_due = True

    def take(self) -> LogLines:
        """Return what there is."""
        with self._lock:
            return self._queue.take()

    def _send_now_and_then(self) -> None:
        while self._due.get():
            time.sleep(LONGEST_WAIT)
            self._is_due = False
            self._send()
