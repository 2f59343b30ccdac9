"""The planner as a child of the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dalsegno.errors import BackendError
from dalsegno.local.events import Events
from dalsegno.local.logs import last_lines, open_log
from dalsegno.local.processes import ProcessIdentity, ends_with_parent

PLANNER_MODULE = "dalsegno_planner"
_READY = "ready "
_STOP_GRACE_S = 20.0


class PlannerProcess:
    """One process ``python -m dalsegno_planner``, which prints ``ready <address>`` once it serves.

    Args:
        environment: Settings, on top of the supervisor's own environment.
        folder: Where it works; one of ours, so that no module of the user's is taken for one of the planner's.
        log_file: Takes what it writes, the readiness line included.
        events: Tells what it prints and when it ends.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str],
        folder: Path,
        log_file: Path,
        events: Events,
    ) -> None:
        self.address: str | None = None
        self._log_file = log_file
        self._log = open_log(log_file)
        self._log_start = log_file.stat().st_size
        self._events = events
        self._unfinished_line = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", PLANNER_MODULE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which stops us in order
            preexec_fn=ends_with_parent(signal.SIGTERM),
            bufsize=0,
        )
        self.identity = ProcessIdentity.of(self._process.pid)
        assert self._process.stdout is not None
        self._output = self._process.stdout
        events.watch(self._output, self._read)

    def await_ready(self, limit_s: float, *, clock: Callable[[], float]) -> str:
        """Waits until the planner serves and returns its address.

        Raises:
            BackendError: It ended before, or took longer than ``limit_s``, or a stop was requested.
        """
        deadline = clock() + limit_s
        while self.address is None:
            if self.has_ended():
                raise BackendError(
                    f"The planner ended with status {self._process.returncode} before it served.\n{self.last_lines()}"
                )
            if self._events.stop_requested:
                raise BackendError("The engine was stopped before its planner served.")
            if clock() > deadline:
                raise BackendError(f"The planner did not serve within {limit_s:.0f} s.\n{self.last_lines()}")
            self._events.wait(max(0.0, deadline - clock()))
        return self.address

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def last_lines(self) -> str:
        """The end of what it has logged."""
        return last_lines(self._log_file, since=self._log_start)

    def stop(self) -> None:
        """Lets the planner finish what it is at, kills it if that takes too long, and frees its files."""
        if not self.has_ended():
            self._process.terminate()
            try:
                self._process.wait(_STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if not self._output.closed:
            self._close_output()
        self._log.close()

    def _read(self) -> None:
        received = os.read(self._output.fileno(), 65536)
        if not received:
            self._close_output()
            return
        self._log.write(received)
        *lines, self._unfinished_line = (self._unfinished_line + received).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if self.address is None and text.startswith(_READY):
                self.address = text.removeprefix(_READY).strip()

    def _close_output(self) -> None:
        self._events.unwatch(self._output)
        self._output.close()
