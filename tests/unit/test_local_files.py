"""Locks, logs, settings and paths of the local engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno.errors import BackendError, UsageError
from dalsegno.local.configuration import cluster_name, render
from dalsegno.local.engine import IDLE_TIMEOUT_VARIABLE, idle_timeout
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.locks import FileLock
from dalsegno.local.logs import last_lines, open_log
from dalsegno.local.processes import ProcessIdentity
from dalsegno.local.sockets import LONGEST_PATH, choose_socket_folder, socket_folder
from dalsegno.local.state import EngineState


def test_a_lock_is_exclusive_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock.acquire(path):
        assert FileLock.try_acquire(path) is None
        assert FileLock.try_acquire(path, shared=True) is None
    lock = FileLock.try_acquire(path)
    assert lock is not None
    lock.close()
    lock.close()


def test_a_shared_lock_admits_others_but_no_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock.acquire(path, shared=True), FileLock.acquire(path, shared=True):
        assert FileLock.try_acquire(path) is None


def test_whoever_inherits_a_lock_holds_it_too(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock.acquire(path)
    heir = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.fd,), text=True
    )
    lock.close()
    assert FileLock.try_acquire(path) is None
    heir.communicate("\n")
    FileLock.acquire(path).close()


def test_a_lock_tells_when_its_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock.acquire(path) as lock:
        assert lock.is_of(path)
        path.unlink()
        assert not lock.is_of(path)
        with FileLock.acquire(path) as other:
            assert other.is_of(path)
            assert not lock.is_of(path)


def test_a_log_that_has_grown_large_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalsegno.local.logs._LARGEST", 10)
    path = tmp_path / "engine.log"
    for line in (b"one\n", b"two is longer\n", b"three\n"):
        with open_log(path) as log:
            log.write(line)
    assert path.read_text() == "three\n"
    assert path.with_name("engine.log.1").read_text() == "one\ntwo is longer\n"


def test_last_lines_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    assert last_lines(path) == f"({path} says nothing.)"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert last_lines(path, 2) == f"The last lines of {path}:\n  line 98\n  line 99"
    assert last_lines(path, since=path.stat().st_size - 8) == f"The last lines of {path}:\n  line 99"


def test_settings_are_quoted_and_the_supervisors_own_come_last() -> None:
    text = render(
        major=18,
        data_dir=Path("/data/18"),
        socket_dir=Path("/it's/run"),
        settings={"fsync": "off", "log_line_prefix": r"a\b'c"},
    )
    lines = text.splitlines()
    assert "fsync = 'off'" in lines
    assert "fsync = 'on'" not in lines
    assert r"log_line_prefix = 'a\\b''c'" in lines
    assert """unix_socket_directories = '"/it''s/run"'""" in lines
    assert f"cluster_name = '{cluster_name(Path('/data/18'))}'" in lines
    assert lines.index("listen_addresses = ''") > lines.index("include_if_exists = 'user.conf'")


def test_settings_that_an_older_server_does_not_know_are_left_out() -> None:
    texts = {major: render(major=major, data_dir=Path("/d"), socket_dir=Path("/s"), settings={}) for major in (15, 18)}
    assert "io_method" not in texts[15]
    assert "io_method" in texts[18]


def test_a_socket_folder_is_where_it_is_wanted_unless_its_path_is_too_long() -> None:
    runtime = Path("/run/user/7")
    room = LONGEST_PATH - len("/.s.PGSQL.5432")
    fits, too_long = Path("/" + "a" * (room - 1)), Path("/" + "a" * room)
    assert choose_socket_folder(fits, ".s.PGSQL.5432", runtime) == fits
    short = choose_socket_folder(too_long, ".s.PGSQL.5432", runtime)
    assert short.parent == runtime
    assert short == choose_socket_folder(too_long, ".s.PGSQL.5432", runtime)
    assert short != choose_socket_folder(too_long / "b", ".s.PGSQL.5432", runtime)


def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    assert socket_folder(tmp_path / "run", "s").stat().st_mode & 0o777 == 0o700
    (tmp_path / "run").chmod(0o755)
    with pytest.raises(BackendError, match=r"must be a folder of uid .* with mode 0700"):
        socket_folder(tmp_path / "run", "s")


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendError, match="must be a folder"):
        socket_folder(tmp_path / "run", "s")


def test_the_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    assert EngineHome.from_environment().root == tmp_path / ".dalsegno"
    monkeypatch.setenv(HOME_VARIABLE, "~/other")
    assert EngineHome.from_environment().root == tmp_path / "other"


def test_the_home_and_its_folders_are_private(tmp_path: Path) -> None:
    home = EngineHome(tmp_path / "home")
    home.create()
    home.create()
    assert home.root.stat().st_mode & 0o066 == 0
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in (home.logs, home.objects))


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match=rf"cannot be used .* {HOME_VARIABLE}"):
        EngineHome(tmp_path / "file" / "home").create()


def test_a_link_to_data_that_is_gone(tmp_path: Path) -> None:
    home = EngineHome(tmp_path / "home")
    home.create()
    (home.root / "postgres").symlink_to(tmp_path / "gone")
    with pytest.raises(BackendError, match="which is gone"):
        home.database_folder(None)


def test_the_state_of_an_engine_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    assert EngineState.read(path) is None
    me = ProcessIdentity.of(os.getpid())
    state = EngineState(supervisor=me, planner=me, address="unix:/s", database_url="postgresql:///d", version="1")
    state.write(path)
    assert EngineState.read(path) == state
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"supervisor": 3}', '{"supervisor": {"pid": 1}}'])
def test_a_state_that_cannot_be_understood_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "engine.json"
    path.write_text(text)
    assert EngineState.read(path) is None


@pytest.mark.parametrize(("text", "seconds"), [("", 1800.0), ("0", 0.0), ("2.5", 2.5)])
def test_the_idle_timeout(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv(IDLE_TIMEOUT_VARIABLE, text)
    assert idle_timeout() == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_an_idle_timeout_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(IDLE_TIMEOUT_VARIABLE, text)
    with pytest.raises(UsageError, match=f"{IDLE_TIMEOUT_VARIABLE} is '{text}'"):
        idle_timeout()
