"""What a data folder says about its server, believed only as far as the processes themselves bear it out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import psutil

from dalsegno.local.configuration import cluster_name
from dalsegno.local.processes import living

PID_FILE = "postmaster.pid"
_READY, _STOPPING = "ready", "stopping"
_PROGRAMS = ("postgres", "postmaster")
_PID_LINE, _STATUS_LINE = 0, 7


@dataclass(frozen=True, slots=True)
class PidFile:
    """The lines of ``postmaster.pid`` that matter; a server that starts has not written them all."""

    pid: int
    status: str

    @property
    def is_ready(self) -> bool:
        """Whether the server accepts connections."""
        return self.status == _READY

    @property
    def is_stopping(self) -> bool:
        """Whether the server is shutting down."""
        return self.status == _STOPPING


def read_pid_file(data_dir: Path) -> PidFile | None:
    """Reads ``postmaster.pid``; ``None`` where there is none or it names no process."""
    try:
        lines = (data_dir / PID_FILE).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    try:
        # A standalone backend writes its PID negated.
        pid = abs(int(lines[_PID_LINE]))
    except (IndexError, ValueError):
        return None
    return PidFile(pid=pid, status=lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else "")


class Serves(Enum):
    """Whether a process is the postmaster of a given data folder."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    """It is a Postgres started by hand, and may not be asked on which folder."""


def find_postmaster(data_dir: Path) -> psutil.Process | None:
    """The living postmaster of ``data_dir``.

    After a crash or a reboot the PID in ``postmaster.pid`` may be a stranger's. It is believed only where
    that process's command line is a Postgres on this very folder.
    """
    recorded = read_pid_file(data_dir)
    process = living(recorded.pid) if recorded is not None else None
    return process if process is not None and serves(process, data_dir) is Serves.YES else None


def find_orphans(data_dir: Path) -> list[psutil.Process]:
    """Processes of a server whose postmaster is gone; one that is in a query may stay for long."""
    title = f"postgres: {cluster_name(data_dir)}: "
    return [process for process in psutil.process_iter() if _title(process).startswith(title)]


def serves(process: psutil.Process, data_dir: Path) -> Serves:
    """Whether ``process`` is the folder's postmaster, by its command line, else by where it works."""
    arguments = _arguments(process)
    if not arguments or Path(arguments[0]).name not in _PROGRAMS:
        return Serves.NO  # also a server's children, whose titles are "postgres: …"
    folder = _data_folder(arguments)
    if folder is None or not folder.is_absolute():
        try:
            folder = Path(process.cwd())  # a postmaster works in its data folder
        except psutil.NoSuchProcess:
            return Serves.NO
        except psutil.AccessDenied:
            return Serves.UNKNOWN
    return Serves.YES if _same_folder(folder, data_dir) else Serves.NO


def _data_folder(arguments: list[str]) -> Path | None:
    following = [*arguments[1:], ""]
    for argument, next_one in zip(arguments, following, strict=True):
        if argument.startswith("-D"):
            return Path(argument.removeprefix("-D") or next_one)
    return None


def _same_folder(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _title(process: psutil.Process) -> str:
    return " ".join(_arguments(process))


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
