"""A runner's tie to the stream process that started it: it must not outlive it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; elsewhere than on Linux the closed socket has to do.

    Args:
        parent: The process ID of the parent, which may be gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def leave_signals_to_parent() -> None:
    """Do not die of a signal that a service manager or a terminal sends to every process of a group.

    The parent decides when a runner ends. A handler that does nothing, rather than an ignored signal: the latter would
    be inherited by what user code starts.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
