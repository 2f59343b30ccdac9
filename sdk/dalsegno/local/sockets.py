"""Folders for Unix sockets, whose paths the kernel limits to about a hundred bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from dalsegno.errors import BackendError
from dalsegno.local.accounts import Account, make_folder

LONGEST_PATH = 103
"""Bytes of a socket's path that every platform takes: 107 on Linux, 103 on macOS."""


def socket_folder(preferred: Path, socket_name: str, owner: Account | None = None) -> Path:
    """Makes a folder with mode 0700 for sockets and returns it.

    That is ``preferred`` where the socket's path is short enough there, else a folder of the system's runtime
    folder, named after ``preferred`` so that every process finds the same one.

    Raises:
        BackendError: The folder exists already and is not ours alone.
    """
    folder = choose_socket_folder(preferred, socket_name, _runtime_folder(owner))
    make_folder(folder, mode=0o700, owner=owner)
    _must_be_private(folder, owner.uid if owner is not None else os.geteuid())
    return folder


def remove_socket_folder(folder: Path) -> None:
    """Removes a folder that ``socket_folder`` made, unless a socket of a process that was killed is still in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def choose_socket_folder(preferred: Path, socket_name: str, runtime: Path) -> Path:
    """The folder that ``socket_folder`` makes, given the system's runtime folder."""
    if len(os.fsencode(preferred / socket_name)) <= LONGEST_PATH:
        return preferred
    return runtime / f"dalsegno-{hashlib.sha256(os.fsencode(preferred)).hexdigest()[:12]}"


def _runtime_folder(owner: Account | None) -> Path:
    if owner is not None:  # somebody else than the caller, who cannot enter the caller's own runtime folder
        return Path("/run") if Path("/run").is_dir() else Path("/tmp")  # noqa: S108 - checked by _must_be_private
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if own and os.access(own, os.W_OK | os.X_OK):
        return Path(own)
    return Path("/tmp")  # noqa: S108 - checked by _must_be_private


def _must_be_private(folder: Path, uid: int) -> None:
    # In a folder that all can write to, somebody else may have made it first.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) & 0o077:
        raise BackendError(
            f"{folder}, the folder for the engine's sockets, must be a folder of uid {uid} with mode 0700; "
            f"it is of uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}. Remove it and start "
            "again."
        )
