"""Processes that are measured: what they write goes to a log, and can be waited for."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

_STARTS_WITHIN_S = 180.0
_STOP_S = 20.0
_LOG_TAIL = 500


class LoggedProcess:
    """One process ``python -m …``.

    Args:
        log: Takes what it writes.
        arguments: The module, and what it is given.
        environment: On top of this process's own.
    """

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self._log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = psutil.Popen(
            [sys.executable, "-m", *arguments],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, words: str) -> str:
        """Waits until it has written a line with these words, and returns the line.

        Raises:
            TimeoutError: It has not, within three minutes or before it ended.
        """
        with suppress(queue.Empty):
            while (line := self._lines.get(timeout=_STARTS_WITHIN_S)) is not None:
                if words in line:
                    return line
        raise TimeoutError(f"it did not write {words!r}; it said: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    def stop(self) -> None:
        """Lets it finish what it is at, and kills it if that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_S)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        with self._log.open("a") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                self._lines.put(line)
        self._lines.put(None)
        self.process.stdout.close()
