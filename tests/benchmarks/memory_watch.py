"""The most memory that a process had while something else went on."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

from tests.benchmarks.engine import memory_mb

_EVERY_S = 0.05


class MemoryWatch:
    """Looks at a process's resident memory for as long as the block lasts.

    Attributes:
        peak_mb: The most that was seen.
    """

    def __init__(self, process: psutil.Process) -> None:
        self.peak_mb = 0.0
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        self.peak_mb = max(self.peak_mb, memory_mb(self._process))
