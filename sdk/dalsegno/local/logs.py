"""Log files of the engine's processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

_LARGEST = 8 * 1024 * 1024
_TAIL = 16 * 1024


def open_log(path: Path) -> IO[bytes]:
    """Opens a log to append to; one that has grown large is set aside first, as ``….1``."""
    try:
        if path.stat().st_size > _LARGEST:
            path.replace(path.with_name(f"{path.name}.1"))
    except FileNotFoundError:
        pass
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(fd, "ab", buffering=0)


def last_lines(path: Path, count: int = 15, *, since: int = 0) -> str:
    """The end of a log, under a line that says which, for error messages.

    Args:
        path: The log.
        count: How many lines, at most.
        since: How many bytes it had when that began which the message is about.
    """
    try:
        with path.open("rb") as log:
            log.seek(max(since, path.stat().st_size - _TAIL))
            lines = log.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        lines = []
    if not lines:
        return f"({path} says nothing.)"
    return "\n".join([f"The last lines of {path}:", *(f"  {line}" for line in lines)])
