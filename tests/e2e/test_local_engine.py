"""The local engine: started on first use, shared, and never in the way of the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from dalsegno.errors import BackendError, StateError
from dalsegno.local import engine
from dalsegno.local.engine import down, ensure_engine, status, up
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.locks import FileLock
from dalsegno.local.processes import living, wait_ended
from dalsegno.local.state import EngineState
from tests.postgres import reachable_folder

_USER = "from dalsegno.local import ensure_engine; print(ensure_engine(), flush=True); input()"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineHome]:
    """An engine's home that nobody has used yet."""
    with reachable_folder() as folder:
        monkeypatch.setenv(HOME_VARIABLE, str(folder / "home"))
        # Tests see the engine as one script after the other would.
        monkeypatch.setattr(engine, "_used", {})
        yield EngineHome.from_environment()
        down()
        _forget_use()


@pytest.fixture
def start_user(home: EngineHome) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts scripts that use the engine until their standard input closes."""
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            user = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", _USER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(user)
            stack.callback(user.kill)
            return user

        yield start


def _forget_use() -> None:
    for lock in engine._used.values():
        lock.close()
    engine._used.clear()


def state_of(home: EngineHome) -> EngineState:
    state = EngineState.read(home.state_file)
    assert state is not None
    return state


def processes_of(home: EngineHome) -> list[psutil.Process]:
    supervisor = psutil.Process(state_of(home).supervisor.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def address_of(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def test_is_started_once_and_shared(home: EngineHome, start_user: Callable[[], subprocess.Popen[str]]) -> None:
    assert not status().running
    users = [start_user() for _ in range(4)]
    addresses = {address_of(user) for user in users}
    assert len(addresses) == 1
    pid = status().pid
    assert ensure_engine() in addresses
    assert status().pid == pid


def test_stops_and_starts_again(home: EngineHome) -> None:
    ensure_engine()
    processes = processes_of(home)
    assert down()
    assert all(wait_ended(process, 0) for process in processes)
    assert not status().running
    assert not down()
    ensure_engine()
    assert status().running


def test_two_homes_run_side_by_side(home: EngineHome, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_engine()
    with reachable_folder() as folder:
        monkeypatch.setenv(HOME_VARIABLE, str(folder))
        assert ensure_engine() != first
        assert down()
    monkeypatch.setenv(HOME_VARIABLE, str(home.root))
    assert status().running


def test_a_path_too_long_for_a_socket(home: EngineHome, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = home.root.parent / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setenv(HOME_VARIABLE, str(deep / "home"))
    address = Path(ensure_engine().removeprefix("unix:"))
    try:
        assert not address.is_relative_to(deep)
        assert address.is_socket()
    finally:
        down()
    assert not address.parent.exists()


def test_a_killed_user_does_not_take_the_engine_along(
    home: EngineHome, start_user: Callable[[], subprocess.Popen[str]]
) -> None:
    user = start_user()
    address = address_of(user)
    pid = status().pid
    os.killpg(user.pid, signal.SIGKILL)
    user.wait()
    assert ensure_engine() == address
    assert status().pid == pid


def test_a_user_killed_during_the_start(home: EngineHome, start_user: Callable[[], subprocess.Popen[str]]) -> None:
    home.create()
    user = start_user()
    while (lock := FileLock.try_acquire(home.engine_lock)) is not None:  # until the supervisor has it
        lock.close()
    user.kill()
    user.wait()
    ensure_engine()
    assert status().running


@pytest.mark.parametrize("victim", ["supervisor", "planner", "postmaster", "everything"])
def test_any_of_its_processes_may_be_killed(home: EngineHome, victim: str) -> None:
    ensure_engine()
    before = state_of(home)
    supervisor, planner = psutil.Process(before.supervisor.pid), psutil.Process(before.planner.pid)
    postmaster = next(child for child in supervisor.children() if child != planner)
    victims = {
        "supervisor": [supervisor],
        "planner": [planner],
        "postmaster": [postmaster],
        "everything": [supervisor, planner, postmaster],
    }[victim]
    for process in victims:
        process.kill()
    assert all(wait_ended(process, 10) for process in victims)
    ensure_engine()
    after = state_of(home)
    assert living(after.supervisor.pid) is not None
    assert (after.supervisor == before.supervisor) == (supervisor not in victims)
    assert down()


def test_ends_when_nobody_has_used_it_for_a_while(
    home: EngineHome, monkeypatch: pytest.MonkeyPatch, start_user: Callable[[], subprocess.Popen[str]]
) -> None:
    monkeypatch.setenv(engine.IDLE_TIMEOUT_VARIABLE, "0.4")
    user = start_user()
    address_of(user)
    supervisor = psutil.Process(state_of(home).supervisor.pid)
    assert not wait_ended(supervisor, 1.0)
    user.communicate("\n")
    assert wait_ended(supervisor, 30)
    assert not status().running


def test_ends_when_its_home_is_moved_away(home: EngineHome) -> None:
    ensure_engine()
    processes = processes_of(home)
    home.root.rename(home.root.with_name("elsewhere"))
    processes[0].send_signal(signal.SIGCHLD)  # it would look within seconds, and so looks at once
    assert all(wait_ended(process, 30) for process in processes)
    ensure_engine()
    assert status().running


def test_a_planner_that_cannot_start_is_shown_with_its_log(
    home: EngineHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "dalsegno_planner"
    broken.mkdir()
    (broken / "__init__.py").touch()
    (broken / "__main__.py").write_text("raise SystemExit('no luck today')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BackendError, match=r"(?s)planner ended with status 1 before it served.*no luck today"):
        ensure_engine()
    assert not status().running
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].removeprefix(f"{tmp_path}{os.pathsep}"))


def test_in_the_foreground_until_interrupted(home: EngineHome) -> None:
    script = "from dalsegno.local import up; up(announce=lambda address: print(address, flush=True))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as foreground:
        address = address_of(foreground)
        assert ensure_engine() == address
        assert status().pid == foreground.pid
        with pytest.raises(StateError, match="runs already"):
            up()
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait() == 0
    assert not status().running
