"""Making a data folder: whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from dalsegno.errors import BackendError
from dalsegno.local.accounts import Account, credentials
from dalsegno.local.installation import PostgresInstallation

DATABASE = "dalsegno"
SUPERUSER = "dalsegno"


def ensure_data_folder(
    data_dir: Path, installation: PostgresInstallation, account: Account | None, *, durable: bool = True
) -> None:
    """Makes the data folder where there is none, with an empty database ``dalsegno``.

    It is made under another name and then moved, so that a start that was killed leaves no half of one. The
    caller holds the folder's lock.

    Args:
        data_dir: The folder.
        installation: The programs, which must be of the folder's major version.
        account: Who is to own it, where the caller is root.
        durable: ``False`` leaves it to the operating system to write it out.

    Raises:
        BackendError: The folder is of another major version or none of Postgres's, or making it failed.
    """
    prefix = f".{data_dir.name}.new-"
    for abandoned in data_dir.parent.glob(f"{prefix}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    if data_dir.exists():
        _must_be_of_major(data_dir, installation.major)
        return
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=data_dir.parent))
    if account is not None:
        os.chown(staging, account.uid, account.gid)
    _fill(staging, installation, account, durable=durable)
    staging.rename(data_dir)
    if durable:
        _sync_folder(data_dir.parent)


def server_environment() -> dict[str, str]:
    """The caller's environment without what would change a server or its programs."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH")}
    return {**kept, "LC_ALL": "C"}


def _must_be_of_major(data_dir: Path, major: int) -> None:
    version_file = data_dir / "PG_VERSION"
    found = version_file.read_text().strip() if version_file.exists() else None
    if found is None:
        raise BackendError(
            f"{data_dir} is not a Postgres data folder: it has no PG_VERSION. Move it away and start again."
        )
    if found != str(major):
        raise BackendError(
            f"{data_dir} holds data of PostgreSQL {found}; this installation is PostgreSQL {major}. Use the "
            f"programs of PostgreSQL {found} (Debian: apt install postgresql-{found}), move the data with "
            "pg_dump and pg_restore, or move the folder away to begin anew."
        )


def _fill(folder: Path, installation: PostgresInstallation, account: Account | None, *, durable: bool) -> None:
    # Only who can enter the socket folder can connect, so the server need not ask again who it is.
    options = ["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--data-checksums"]
    options += [] if durable else ["--no-sync"]
    initdb = [installation.program("initdb"), "--pgdata", str(folder), "--username", SUPERUSER, *options]
    _run(initdb, account)
    # By a single-user server: a data folder is complete from the moment it has its name.
    options = [] if durable else ["-F"]
    single = [installation.program("postgres"), "--single", "-D", str(folder), *options, "postgres"]
    _run(single, account, script=f"CREATE DATABASE {DATABASE};\n")


def _run(command: list[str], account: Account | None, *, script: str = "") -> None:
    result = subprocess.run(
        command,
        check=False,
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env=server_environment(),
        **credentials(account),
    )
    if result.returncode != 0:
        said = result.stdout.strip()
        raise BackendError(f"{' '.join(command)} ended with status {result.returncode}; it said:\n{said}")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
