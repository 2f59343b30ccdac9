"""Processes that are not what a stale file says they are, and children that must not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psutil

_PR_SET_PDEATHSIG = 1
_ZOMBIE_CHECK_S = 0.5
_KILLED_S = 30.0
_SAME_START_S = 2.0  # the clock that start times are read from may be corrected while a process lives


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for as long as it lives: a PID alone is reused by strangers."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """The identity of the living process ``pid``."""
        return cls(pid=pid, create_time=psutil.Process(pid).create_time())

    def find(self, *, running: str | None = None) -> psutil.Process | None:
        """Returns the process if it lives, is the same one, and has the argument ``running`` if given."""
        process = living(self.pid)
        if process is None:
            return None
        try:
            same = abs(process.create_time() - self.create_time) <= _SAME_START_S
            return process if same and (running is None or running in process.cmdline()) else None
        except psutil.NoSuchProcess:
            return None


def living(pid: int) -> psutil.Process | None:
    """Returns the process, or ``None`` where there is none or only a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (psutil.NoSuchProcess, ValueError):
        return None


def wait_ended(process: psutil.Process, timeout_s: float) -> bool:
    """Waits for a process, ours or not, and returns whether it ended in time; a zombie has ended."""
    deadline = time.monotonic() + timeout_s
    try:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            # In slices, because where nobody clears a zombie away a wait for it might go on for ever.
            process.wait(max(0.0, min(_ZOMBIE_CHECK_S, deadline - time.monotonic())))
    except psutil.TimeoutExpired:
        return time.monotonic() < deadline and wait_ended(process, deadline - time.monotonic())
    except psutil.NoSuchProcess:
        return True
    return True


def clear_away(child: psutil.Process) -> None:
    """Have the kernel forget a child of this process that has ended; it stays as a zombie otherwise."""
    with suppress(ChildProcessError):  # somebody else has waited for it
        os.waitpid(child.pid, os.WNOHANG)


def end(process: psutil.Process, *, polite: signal.Signals = signal.SIGTERM, grace_s: float) -> None:
    """Asks a verified process to end, and kills it where it has not after ``grace_s`` seconds."""
    try:
        process.send_signal(polite)
        if not wait_ended(process, grace_s):
            process.kill()
            wait_ended(process, _KILLED_S)
    except psutil.NoSuchProcess:
        return


def ends_with_parent(parting: signal.Signals) -> Callable[[], None] | None:
    """Returns a ``preexec_fn`` that has the kernel send ``parting`` when the parent's thread ends.

    Only Linux has this; elsewhere a leftover is found and stopped by the next start. The caller must be its
    process's main thread, and the only one.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(parting))
        if os.getppid() != parent:  # it ended before the kernel was told
            os.kill(os.getpid(), parting)

    return in_child
