"""The embedded Postgres under everything that can happen to its processes and files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from dalsegno.errors import BackendError
from dalsegno.local import accounts
from dalsegno.local.accounts import Account, credentials, server_account
from dalsegno.local.configuration import OWN_SETTINGS_FILE
from dalsegno.local.databases import data_folders, embedded_postgres, upgrade
from dalsegno.local.home import EngineHome
from dalsegno.local.initialisation import ensure_data_folder
from dalsegno.local.postgres import SOCKET_NAME, EmbeddedPostgres, PostgresInstallation
from dalsegno.local.postmaster import PID_FILE, find_orphans, find_postmaster, read_pid_file
from dalsegno.local.processes import wait_ended
from tests.postgres import (
    EMBEDDED_MAJOR,
    OLDEST_MAJOR,
    PostgresServer,
    find_postgres,
    local_postgres,
    reachable_folder,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture
def account() -> Account | None:
    return server_account()


@pytest.fixture
def fresh_server(postgres: PostgresServer, folder: Path) -> Iterator[EmbeddedPostgres]:
    """A stopped server of the test's own, without a data folder yet."""
    server = local_postgres(postgres.server.installation, folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def initialised(postgres: PostgresServer) -> Iterator[Path]:
    """A data folder that was never started: most tests begin with a copy, because making one takes a second."""
    with reachable_folder() as folder:
        installation = postgres.server.installation
        data_dir = folder / str(installation.major)
        ensure_data_folder(data_dir, installation, server_account(), durable=False)
        yield data_dir


@pytest.fixture
def server(fresh_server: EmbeddedPostgres, initialised: Path) -> EmbeddedPostgres:
    """A stopped server of the test's own, with a data folder."""
    subprocess.run(["cp", "-a", initialised, fresh_server.data_dir], check=True)
    return fresh_server


@pytest.fixture
def start_stranger(account: Account | None) -> Iterator[Callable[[], psutil.Process]]:
    """Starts processes that have nothing to do with Postgres, as the user that Postgres runs as."""
    with ExitStack() as stack:

        def start() -> psutil.Process:
            stranger = stack.enter_context(
                subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, cwd="/", **credentials(account))
            )
            assert stranger.stdin is not None
            stack.callback(stranger.stdin.close)
            return psutil.Process(stranger.pid)

        yield start


def postmaster_of(server: EmbeddedPostgres) -> psutil.Process:
    postmaster = find_postmaster(server.data_dir)
    assert postmaster is not None
    return postmaster


def kill_postmaster_of(server: EmbeddedPostgres) -> psutil.Process:
    postmaster = postmaster_of(server)
    postmaster.kill()
    assert wait_ended(postmaster, 10)
    return postmaster


def execute(server: EmbeddedPostgres, sql: str) -> str:
    return PostgresServer(server, works_ahead=False).execute(sql, database="dalsegno")


@contextmanager
def busy_client(server: EmbeddedPostgres) -> Iterator[None]:
    """Keeps one backend in a query that ends with its connection only."""

    def query() -> None:
        with pytest.raises(AssertionError, match="connection"):
            execute(server, "DO $$ BEGIN PERFORM pg_advisory_lock(1); LOOP END LOOP; END $$")

    client = threading.Thread(target=query)
    client.start()
    while execute(server, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") != "1":
        pass
    yield
    client.join()


def test_starts_once_and_keeps_its_data(server: EmbeddedPostgres) -> None:
    dsn = server.start()
    first = postmaster_of(server)
    assert server.start() == dsn
    assert postmaster_of(server) == first
    execute(server, "CREATE TABLE t AS SELECT 1 AS x")
    assert server.stop()
    assert not server.is_running()
    assert not server.stop()
    server.start()
    assert execute(server, "SELECT x FROM t") == "1"


def test_listens_on_a_private_socket_only(server: EmbeddedPostgres) -> None:
    server.start()
    assert execute(server, "SHOW listen_addresses") == ""
    assert server.socket_dir.stat().st_mode & 0o777 == 0o700


def test_is_durable_unless_told_otherwise(postgres: PostgresServer, folder: Path) -> None:
    server = local_postgres(postgres.server.installation, folder, settings={})
    try:
        server.start()
        assert execute(server, "SHOW fsync") == "on"
        assert execute(server, "SHOW synchronous_commit") == "on"
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres runs as somebody else")
def test_drops_the_rights_of_root(server: EmbeddedPostgres, account: Account | None) -> None:
    assert account is not None
    server.start()
    assert set(postmaster_of(server).uids()) == {account.uid}
    assert server.data_dir.stat().st_uid == account.uid


@pytest.fixture
def system_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the folder in which root's engine keeps what Postgres cannot reach elsewhere."""
    monkeypatch.setattr(accounts, "SYSTEM_FOLDER", folder / "system")
    return folder / "system"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres runs as somebody else")
def test_a_home_in_a_closed_folder_stays_closed(folder: Path, system_folder: Path, account: Account | None) -> None:
    assert account is not None
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    home = EngineHome(closed / "home")
    home.create()
    databases = home.database_folder(account)
    assert databases.parent == system_folder
    assert account.can_enter(databases)
    assert home.database_folder(account) == databases
    assert (databases / "home").read_text().strip() == str(home.root)
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres runs as somebody else")
def test_programs_in_a_closed_folder_are_copied(folder: Path, system_folder: Path, account: Account | None) -> None:
    assert account is not None
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    bin_dir = closed / "pginstall18" / "bin"
    for part in ("bin", "lib", "share"):
        (bin_dir.parent / part).mkdir(parents=True)
    (bin_dir / "postgres").write_text("#!/bin/sh\necho postgres 18.1\n")
    (bin_dir / "postgres").chmod(0o700)
    copy = PostgresInstallation.at(bin_dir).reachable_by(account)
    assert copy.bin_dir.is_relative_to(system_folder)
    assert account.can_execute(copy.bin_dir / "postgres")
    assert copy == PostgresInstallation.at(bin_dir).reachable_by(account)
    assert copy.reachable_by(account) is copy


def test_a_stale_pid_file_that_names_a_stranger(
    server: EmbeddedPostgres, start_stranger: Callable[[], psutil.Process]
) -> None:
    server.start()
    pid_file = server.data_dir / PID_FILE
    text = pid_file.read_text()
    server.stop()
    stranger = start_stranger()
    pid_file.write_text(re.sub(r"^\d+", str(stranger.pid), text))
    (server.socket_dir / f"{SOCKET_NAME}.lock").write_text(f"{stranger.pid}\n")

    assert not server.is_running()
    assert not server.stop()
    server.start()

    assert execute(server, "SELECT 1") == "1"
    assert stranger.is_running()


def test_a_stale_pid_file_that_names_another_postgres(server: EmbeddedPostgres, postgres: PostgresServer) -> None:
    server.start()
    pid_file = server.data_dir / PID_FILE
    text = pid_file.read_text()
    server.stop()
    other = postmaster_of(postgres.server)
    pid_file.write_text(re.sub(r"^\d+", str(other.pid), text))

    assert not server.stop()
    server.start()

    assert postmaster_of(server) != other
    assert other.is_running()
    assert postgres.execute("SELECT 1") == "1"


def test_a_killed_postmaster_is_replaced_and_loses_nothing(server: EmbeddedPostgres) -> None:
    server.start()
    execute(server, "CREATE TABLE t AS SELECT 1 AS x")
    killed = kill_postmaster_of(server)
    server.start()
    assert postmaster_of(server) != killed
    assert execute(server, "SELECT x FROM t") == "1"


@pytest.mark.parametrize("then", ["start", "stop"])
def test_a_killed_postmaster_does_not_stay_as_a_zombie(server: EmbeddedPostgres, then: str) -> None:
    server.start()
    postmaster = postmaster_of(server)
    postmaster.kill()
    os.waitid(os.P_PID, postmaster.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has cleared it away
    getattr(server, then)()
    assert not postmaster.is_running()


def test_a_busy_backend_that_outlives_its_postmaster_is_ended(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dalsegno.local.postgres._ORPHANS_END_S", 0.3)
    server.start()
    with busy_client(server):
        kill_postmaster_of(server)
        server.start()
    assert execute(server, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"


def test_stopping_ends_what_a_killed_postmaster_left(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalsegno.local.postgres._ORPHANS_END_S", 0.3)
    server.start()
    with busy_client(server):
        kill_postmaster_of(server)
        assert server.stop()
        assert not find_orphans(server.data_dir)
        assert not server.stop()


def test_concurrent_starts_make_one_server(fresh_server: EmbeddedPostgres) -> None:
    installation = fresh_server.installation
    script = textwrap.dedent(f"""
        from pathlib import Path
        from dalsegno.local.postgres import PostgresInstallation
        from dalsegno.local.postmaster import find_postmaster
        from tests.postgres import local_postgres
        installation = PostgresInstallation(Path({str(installation.bin_dir)!r}), {installation.major})
        server = local_postgres(installation, Path({str(fresh_server.data_dir.parent)!r}))
        server.start()
        print(find_postmaster(server.data_dir).pid)
    """)
    starters = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    pids = {starter.communicate()[0].strip() for starter in starters}
    assert {starter.returncode for starter in starters} == {0}
    assert pids == {str(postmaster_of(fresh_server).pid)}


def test_a_killed_initialisation_leaves_nothing(fresh_server: EmbeddedPostgres) -> None:
    half_done = fresh_server.data_dir.with_name(f".{fresh_server.data_dir.name}.new-abcd")
    half_done.mkdir()
    (half_done / "PG_VERSION").write_text("1")
    fresh_server.start()
    assert not half_done.exists()


def test_a_data_folder_of_another_major_is_refused(fresh_server: EmbeddedPostgres) -> None:
    fresh_server.data_dir.mkdir()
    (fresh_server.data_dir / "PG_VERSION").write_text("12\n")
    with pytest.raises(BackendError, match=r"holds data of PostgreSQL 12; this installation is PostgreSQL 1\d"):
        fresh_server.start()


def test_a_folder_that_is_not_postgres_is_refused(fresh_server: EmbeddedPostgres) -> None:
    fresh_server.data_dir.mkdir()
    (fresh_server.data_dir / "holiday.jpg").touch()
    with pytest.raises(BackendError, match="has no PG_VERSION"):
        fresh_server.start()


def test_a_server_that_does_not_start_shows_its_log(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.data_dir / OWN_SETTINGS_FILE).write_text("shared_buffers = 'much'\n")
    with pytest.raises(BackendError, match=r'(?s)ended while it started.*invalid value .* "shared_buffers"'):
        server.start()


def test_the_users_own_settings_win(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.data_dir / OWN_SETTINGS_FILE).write_text("work_mem = '7MB'\nlisten_addresses = '*'\n")
    server.start()
    assert execute(server, "SHOW work_mem") == "7MB"
    assert execute(server, "SHOW listen_addresses") == ""


def test_an_interrupted_start_leaves_no_server(server: EmbeddedPostgres) -> None:
    with pytest.raises(BackendError, match="was interrupted"):
        server.start(interrupted=lambda: True)
    assert not server.is_alive()
    server.start()


def test_a_server_on_its_way_out_is_waited_for(server: EmbeddedPostgres) -> None:
    server.start()
    leaving = postmaster_of(server)
    client = subprocess.Popen(
        [server.installation.program("psql"), "--no-psqlrc", server.dsn], stdin=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    while execute(server, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql'") != "2":
        pass
    leaving.send_signal(signal.SIGTERM)  # a smart shutdown, which waits for that client
    while (recorded := read_pid_file(server.data_dir)) is None or not recorded.is_stopping:
        pass
    server.start()
    assert wait_ended(leaving, 0)
    assert execute(server, "SELECT 1") == "1"
    client.communicate()


def test_upgrades_from_another_major(folder: Path, account: Account | None) -> None:
    old = find_postgres(OLDEST_MAJOR)
    if old is None:
        pytest.skip(f"PostgreSQL {OLDEST_MAJOR} is not installed")
    home = EngineHome(folder / "home")
    home.create()
    databases = home.database_folder(account)
    old_server = local_postgres(old, databases)
    old_server.start()
    execute(old_server, "CREATE TABLE t AS SELECT 'kept' AS x")
    old_server.stop()

    with pytest.raises(BackendError, match=f"holds data of PostgreSQL {OLDEST_MAJOR}.*upgrade --from-bin"):
        embedded_postgres(home)
    assert upgrade(home, old.bin_dir) == databases / str(EMBEDDED_MAJOR)

    server = embedded_postgres(home)
    try:
        server.start()
        assert execute(server, "SELECT x FROM t") == "kept"
    finally:
        server.stop()
    assert {each.name for each in data_folders(databases)} == {str(OLDEST_MAJOR), str(EMBEDDED_MAJOR)}
