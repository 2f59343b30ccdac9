"""Which Postgres an engine's home has, and how its data moves on to the next major version."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dalsegno.errors import BackendError, StateError, UsageError
from dalsegno.local.accounts import Account, server_account
from dalsegno.local.home import EngineHome
from dalsegno.local.locks import FileLock
from dalsegno.local.postgres import (
    SOCKET_NAME,
    SUPERUSER,
    EmbeddedPostgres,
    PostgresInstallation,
    find_embedded,
)
from dalsegno.local.sockets import socket_folder

_DATABASES = """
SELECT json_agg(datname) FROM pg_database
WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres'
"""


def embedded_postgres(home: EngineHome, *, die_with_parent: bool = False) -> EmbeddedPostgres:
    """The Postgres of an engine's home.

    Raises:
        BackendError: The home holds data of other major versions only, or cannot be reached by Postgres.
    """
    account = server_account()
    folder = home.database_folder(account)
    installation = find_embedded()
    data_dir = folder / str(installation.major)
    if not data_dir.exists() and (others := data_folders(folder)):
        newest = max(others, key=lambda other: int(other.name))
        raise BackendError(
            f"{newest} holds data of PostgreSQL {newest.name}; this installation brings PostgreSQL "
            f"{installation.major}. To take the data over, run: python -m dalsegno.local upgrade --from-bin "
            f"FOLDER, where FOLDER holds the programs of PostgreSQL {newest.name} (Debian: apt install "
            f"postgresql-{newest.name}, then /usr/lib/postgresql/{newest.name}/bin). To begin anew, move it "
            "away."
        )
    return _server(installation, data_dir, folder / "run", account, home, die_with_parent=die_with_parent)


def data_folders(folder: Path) -> list[Path]:
    """The data folders in a home's database folder, each named after its major version."""
    return [entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir()]


def upgrade(home: EngineHome, old_bin_dir: Path) -> Path:
    """Takes over the data of another major version by ``pg_dump`` and returns the new data folder.

    The old data folder stays as it is. The new one gets its name once everything is in it, so an upgrade that
    was killed can be run again.

    Args:
        home: The engine's folder. The engine must not run.
        old_bin_dir: The programs of the old major version.

    Raises:
        StateError: The engine runs.
        UsageError: There is no data of the old version, or the new version has data already.
        BackendError: A program failed.
    """
    account = server_account()
    folder = home.database_folder(account)
    old, new = PostgresInstallation.at(old_bin_dir), find_embedded()
    source, target = folder / str(old.major), folder / str(new.major)
    if not source.exists():
        raise UsageError(f"{old_bin_dir} is PostgreSQL {old.major}, and there is no data of that version: {source}.")
    if target.exists():
        raise UsageError(f"{target} exists: this home has data of PostgreSQL {new.major} already.")
    with _stopped_engine(home), tempfile.TemporaryDirectory(prefix=".upgrade-", dir=folder) as work:
        staging = Path(work)
        staging.chmod(0o711)
        old_server = _server(old, source, folder / "run", account, home)
        new_server = _server(new, staging / target.name, staging / "run", account, home)
        with _running(old_server), _running(new_server):
            for database in _databases(old_server, new):
                _move(database, old_server, new_server, new, staging / "dump")
        new_server.data_dir.rename(target)
    return target


def _server(
    installation: PostgresInstallation,
    data_dir: Path,
    sockets: Path,
    account: Account | None,
    home: EngineHome,
    *,
    die_with_parent: bool = False,
) -> EmbeddedPostgres:
    return EmbeddedPostgres(
        installation.reachable_by(account),
        data_dir,
        socket_folder(sockets, SOCKET_NAME, account),
        account=account,
        log_file=home.logs / "postgres.log",
        die_with_parent=die_with_parent,
    )


@contextlib.contextmanager
def _stopped_engine(home: EngineHome) -> Iterator[None]:
    with FileLock.acquire(home.start_lock):
        engine_lock = FileLock.try_acquire(home.engine_lock)
        if engine_lock is None:
            raise StateError("The engine runs; stop it first: dalsegno down.")
        with engine_lock:
            yield


@contextlib.contextmanager
def _running(server: EmbeddedPostgres) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


def _databases(server: EmbeddedPostgres, tools: PostgresInstallation) -> list[str]:
    listed = _run(tools, "psql", "--no-psqlrc", "-At", "-d", server.dsn_of("postgres"), "-c", _DATABASES)
    names: list[str] = json.loads(listed)
    return names


def _move(
    name: str, source: EmbeddedPostgres, target: EmbeddedPostgres, tools: PostgresInstallation, dump: Path
) -> None:
    # The newer pg_dump reads older servers; the other way round is not promised.
    _run(tools, "pg_dump", "--format=directory", f"--file={dump}", f"--dbname={source.dsn_of(name)}")
    if name != SUPERUSER:  # every new data folder has that one
        _run(tools, "createdb", f"--maintenance-db={target.dsn_of('postgres')}", "--template=template0", name)
    _run(tools, "pg_restore", "--exit-on-error", f"--dbname={target.dsn_of(name)}", str(dump))
    shutil.rmtree(dump)


def _run(tools: PostgresInstallation, program: str, *arguments: str) -> str:
    result = subprocess.run(
        [tools.program(program), *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        raise BackendError(f"{program} ended with status {result.returncode}; it said:\n{result.stderr.strip()}")
    return result.stdout
