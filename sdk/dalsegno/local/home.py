"""The engine's folder: ``DALSEGNO_HOME``, by default ``~/.dalsegno``.

::

    engine.json    the running engine: processes, address, connection string, version
    *.lock         see EngineHome
    run/           the planner's socket
    logs/          engine.log  planner.log  postgres.log
    objects/       values above the inline limit
    postgres/      18/ the data folder   18.lock 18.claim   run/ the server's socket

All of it is the user's alone. As root, Postgres runs as an account of its own (see ``accounts``), so the
folder and ``postgres/`` are open to traversal, and ``postgres/18`` is that account's. Where the account
cannot come that far, because a folder above is closed (``/root`` usually is), ``postgres`` is a link into
``/var/lib/dalsegno``: nobody's folder is opened. Whoever then removes the home leaves that folder there; it
names its home in a file ``home``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dalsegno.errors import BackendError
from dalsegno.local.accounts import Account, make_folder, make_system_folder

HOME_VARIABLE = "DALSEGNO_HOME"
_DEFAULT = "~/.dalsegno"


@dataclass(frozen=True, slots=True)
class EngineHome:
    """Where everything of one engine is. Two homes never meet."""

    root: Path

    @classmethod
    def from_environment(cls) -> Self:
        """The home that ``DALSEGNO_HOME`` names."""
        root = Path(os.environ.get(HOME_VARIABLE) or _DEFAULT).expanduser().absolute()
        return cls(root.parent.resolve() / root.name)

    @property
    def state_file(self) -> Path:
        """Describes the running engine."""
        return self.root / "engine.json"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the engine, and by a supervisor that is not ready yet."""
        return self.root / "start.lock"

    @property
    def engine_lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "engine.lock"

    @property
    def recovery_lock(self) -> Path:
        """Held by the supervisor while no planner serves."""
        return self.root / "recovery.lock"

    @property
    def users_lock(self) -> Path:
        """Shared by each process that uses the engine while it lives; its time says when one last came."""
        return self.root / "users.lock"

    @property
    def logs(self) -> Path:
        """Logs of supervisor, planner and Postgres."""
        return self.root / "logs"

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.root / "objects"

    @property
    def sockets(self) -> Path:
        """The planner's socket, if paths are short enough."""
        return self.root / "run"

    def create(self) -> None:
        """Makes the folders that are not there yet.

        Raises:
            BackendError: The home cannot be made or is somebody else's.
        """
        is_root = os.geteuid() == 0
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            make_folder(self.root, mode=0o711 if is_root else 0o700)
            self._must_be_ours()
            for folder in (self.logs, self.objects):
                make_folder(folder, mode=0o700)
        except OSError as error:
            raise BackendError(
                f"The engine's folder {self.root} cannot be used ({error}). Set {HOME_VARIABLE} to a folder that can."
            ) from error

    def database_folder(self, account: Account | None) -> Path:
        """Makes and returns the folder that holds data folders, one for each major version of Postgres.

        Raises:
            BackendError: The account that Postgres runs as cannot come there.
        """
        folder = self.root / "postgres"
        if folder.is_symlink() and not folder.exists():
            raise BackendError(
                f"{folder} is a link to {folder.readlink()}, which is gone. Restore it, or remove the link "
                "to begin anew."
            )
        if not folder.exists():
            if account is None or account.can_enter(self.root):
                make_folder(folder, mode=0o700 if account is None else 0o711)
            else:
                folder.symlink_to(self._system_folder())
        folder = folder.resolve()  # the account need not come here through the link
        if account is not None and not account.can_enter(folder):
            raise BackendError(
                f"Postgres refuses to run as root, and the account {account.name!r} that it runs as instead "
                f"cannot enter {folder}. Open the folders above it for traversal (chmod o+x), or "
                f"set {HOME_VARIABLE} to another place."
            )
        return folder

    def _system_folder(self) -> Path:
        prefix = f"{self.root.name.lstrip('.')}-"
        # Named at random, not after the home: a home that was removed and made again begins anew.
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=make_system_folder()))
        (folder / "home").write_text(f"{self.root}\n")
        folder.chmod(0o711)
        return folder

    def _must_be_ours(self) -> None:
        owner = self.root.stat().st_uid
        if owner != os.geteuid():
            raise BackendError(
                f"The engine's folder {self.root} belongs to uid {owner}, and this process runs as uid "
                f"{os.geteuid()}. Run as that user, or set {HOME_VARIABLE} to a folder of your own."
            )
