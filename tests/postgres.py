"""Postgres servers for the tests: one a session for each major version, a database for each test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dalsegno.local.accounts import server_account
from dalsegno.local.postgres import (
    SOCKET_NAME,
    EmbeddedPostgres,
    PostgresInstallation,
    find_embedded,
    find_installed,
)
from dalsegno.local.sockets import socket_folder

EMBEDDED_MAJOR = 18
OLDEST_MAJOR = 15

# What is written survives the death of a process, not that of the machine: tests need no more. Nobody follows the log;
# databases are copied without it.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "128MB",
    "max_connections": "200",
}


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement that runs, and the name that it is told by."""

    name: str
    psql: subprocess.Popen[str]

    def finish(self) -> str:
        """Waits for its end, and returns its rows."""
        output, errors = self.psql.communicate()
        if self.psql.returncode != 0:
            msg = f"{self.name}: {errors.strip()}"
            raise AssertionError(msg)
        return output.strip()


class PostgresServer:
    """A running server whose databases come and go with the tests.

    Args:
        server: The server.
        works_ahead: Whether the database of the next test is made while one runs; not where tests stop the server.
    """

    def __init__(self, server: EmbeddedPostgres, *, works_ahead: bool) -> None:
        self.server = server
        self._works_ahead = works_ahead
        self.major = server.installation.major
        self._numbers = itertools.count(1)
        self._ahead: _Statement | None = None
        self._dropping: _Statement | None = None

    def dsn(self, database: str) -> str:
        """The connection string of a database of this server."""
        return self.server.dsn_of(database)

    def create_database(self, *, migrated: bool) -> str:
        """Creates a database, empty or with the planner's current schema, and returns its name."""
        if not migrated:
            name = self._new_name()
            self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            return name
        made = self._ahead or self._copying()
        self._ahead = self._copying() if self._works_ahead else None
        made.finish()
        return made.name

    def drop_database(self, name: str) -> None:
        """Drops a database, whoever is still connected to it."""
        self._dropped(name).finish()

    def drop_meanwhile(self, name: str) -> None:
        """Has a database dropped while the next test runs."""
        if self._dropping is not None:
            self._dropping.finish()
        self._dropping = self._dropped(name)

    def finish(self) -> None:
        """Waits for what is under way for other tests."""
        for statement in (self._ahead, self._dropping):
            if statement is not None:
                statement.psql.communicate()

    def _dropped(self, name: str) -> _Statement:
        return _Statement(name, self._psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "postgres"))

    def _copying(self) -> _Statement:
        """Has the next test's database made: files are copied as they are, which costs less than page by page."""
        name = self._new_name()
        copy = f"CREATE DATABASE {name} TEMPLATE {self.migrated_template} STRATEGY FILE_COPY"
        return _Statement(name, self._psql(copy, "postgres"))

    def _new_name(self) -> str:
        return f"test_{next(self._numbers)}"

    @cached_property
    def migrated_template(self) -> str:
        """The database that the migrations have run in, once for the whole session."""
        from dalsegno_planner.store.migrate import migrate

        name = "migrated"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        _in_thread(lambda: asyncio.run(migrate(self.dsn(name))))
        self.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        return name

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Runs one statement and returns its rows as text, columns apart by ``|``."""
        return _Statement(sql, self._psql(sql, database)).finish()

    def _psql(self, sql: str, database: str) -> subprocess.Popen[str]:
        psql = [
            self.server.installation.program("psql"),
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
        ]
        command = [*psql, "--set", "ON_ERROR_STOP=1", "--dbname", self.dsn(database), "--command", sql]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def find_postgres(major: int) -> PostgresInstallation | None:
    """The embedded Postgres or the system's own, whichever has this major version."""
    embedded = find_embedded()
    return embedded if embedded.major == major else find_installed(major)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder with a short path, which the Postgres account can enter if we are root."""
    folder = Path(tempfile.mkdtemp(prefix="dalsegno-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local_postgres(
    installation: PostgresInstallation,
    folder: Path,
    *,
    settings: Mapping[str, str] = _SETTINGS,
    die_with_parent: bool = False,
) -> EmbeddedPostgres:
    """A server whose data folder is in ``folder``, named after its major version; it has not been started."""
    account = server_account()
    return EmbeddedPostgres(
        installation.reachable_by(account),
        folder / str(installation.major),
        socket_folder(folder / "run", SOCKET_NAME, account),
        account=account,
        settings=settings,
        die_with_parent=die_with_parent,
        durable_initialisation=False,
    )


@contextmanager
def running_postgres(
    installation: PostgresInstallation, *, works_ahead: bool = True, die_with_parent: bool = True
) -> Iterator[PostgresServer]:
    """Runs a server in a temporary folder; it stops with this process, even if that is killed.

    Args:
        installation: What is run.
        works_ahead: Whether databases are made before they are asked for.
        die_with_parent: False where this process has other threads, as gRPC's: nothing of ours may run in its fork.
    """
    with reachable_folder() as folder:
        server = local_postgres(installation, folder, die_with_parent=die_with_parent)
        try:
            with warnings.catch_warnings():
                # Newer Pythons warn of a fork beside threads; here pytest-timeout's may be the only other one.
                warnings.simplefilter("ignore", DeprecationWarning)
                server.start()
            databases = PostgresServer(server, works_ahead=works_ahead)
            yield databases
            databases.finish()
        finally:
            server.stop()


def _in_thread(work: Callable[[], None]) -> None:
    """Runs ``work`` where there is no event loop, and raises what it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
