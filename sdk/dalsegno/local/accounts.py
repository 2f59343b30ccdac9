"""The account that Postgres runs as.

Postgres refuses to run as root. Started by an ordinary user it runs as that user. Started by root it runs as
the system account ``dalsegno``, made on first use: an account of its own, because whoever shares an account
with Postgres can read its data. Where accounts cannot be made (a read-only ``/etc``, no ``useradd``) it is
``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from dalsegno.errors import BackendError
from dalsegno.local.locks import FileLock

ACCOUNT_NAME = "dalsegno"
SYSTEM_FOLDER = Path("/var/lib/dalsegno")
"""Where root's engine keeps what its Postgres account could not reach at its usual place."""


class Credentials(TypedDict, total=False):
    """Arguments of ``subprocess`` that drop root's rights."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether the account can traverse ``folder`` and everything above it."""
        return self._succeeds('cd -P -- "$1"', folder)

    def can_execute(self, program: Path) -> bool:
        """Whether the account can read and run ``program``."""
        return self._succeeds('[ -r "$1" ] && [ -x "$1" ]', program)

    def _succeeds(self, condition: str, path: Path) -> bool:
        # Asked of the kernel by the account itself: mode bits alone say nothing of ACLs and security modules.
        asked = subprocess.run(
            ["/bin/sh", "-c", condition, "sh", str(path)],
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **credentials(self),
        )
        return asked.returncode == 0


def credentials(account: Account | None) -> Credentials:
    """Arguments for ``subprocess`` to run as ``account``; none for the caller's own."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def server_account() -> Account | None:
    """The account to run Postgres as, or ``None`` where that is the caller's own."""
    if os.geteuid() != 0:
        return None
    return _existing(ACCOUNT_NAME) or _made(ACCOUNT_NAME) or _fallback()


def make_folder(folder: Path, *, mode: int, owner: Account | None = None) -> None:
    """Makes ``folder`` with exactly this mode and owner; one that exists is left as it is."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(mode)
    if owner is not None:
        os.chown(folder, owner.uid, owner.gid)


def make_system_folder() -> Path:
    """Makes ``SYSTEM_FOLDER``: root's, and open for traversal only."""
    SYSTEM_FOLDER.parent.mkdir(parents=True, exist_ok=True)
    make_folder(SYSTEM_FOLDER, mode=0o711)
    return SYSTEM_FOLDER


def _existing(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    # An administrator may have given the name to somebody who can log in as root; Postgres would refuse that.
    return Account(name, entry.pw_uid, entry.pw_gid) if entry.pw_uid else None


def _made(name: str) -> Account | None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return None
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", str(SYSTEM_FOLDER)]
    # useradd does not wait for another useradd; engines of two homes may be started at the same time.
    with FileLock.acquire(make_system_folder() / "account.lock"):
        if _existing(name) is None:
            subprocess.run(
                [useradd, *options, "--shell", "/usr/sbin/nologin", name],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
    return _existing(name)


def _fallback() -> Account:
    account = _existing("nobody")
    if account is None:
        raise BackendError(
            f"Postgres refuses to run as root, the account {ACCOUNT_NAME!r} could not be made, and there is "
            f"no account 'nobody'. Make one (useradd --system {ACCOUNT_NAME}), run as an ordinary user, or "
            "set DALSEGNO_ADDRESS to a planner that runs elsewhere."
        )
    return account
