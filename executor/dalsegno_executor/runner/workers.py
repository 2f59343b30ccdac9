"""Threads that are started when there is work for them, and kept."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from dalsegno_executor.runner.coroutines import thread_loop

Work: TypeAlias = Callable[[], object]


class Workers:
    """Runs functions in up to `limit` threads."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._waiting = 0

    def run(self, work: Work) -> None:
        """Run a function as soon as a thread is free."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._limit:
                self._start()
            else:
                self._waiting += 1
        self._queue.put(work)

    def close(self) -> None:
        """Let every thread end after what it runs."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)

    def _start(self) -> None:
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _loop(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            with self._lock:
                if self._waiting > 0:
                    self._waiting -= 1
                else:
                    self._idle += 1
        thread_loop.close()
