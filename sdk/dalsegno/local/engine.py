"""The local engine: one Postgres and one planner for every script that has the same home.

Whoever needs it calls ``ensure_engine``; nobody has to stop it. Only the kernel's word is taken for who is
alive: locks that end with their holders, pipes that close, and processes whose start time and command line
fit.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dalsegno.errors import BackendError, StateError, UsageError
from dalsegno.local.databases import embedded_postgres
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.locks import FileLock
from dalsegno.local.logs import last_lines, open_log
from dalsegno.local.processes import end
from dalsegno.local.sockets import remove_socket_folder
from dalsegno.local.state import EngineState, installed_version
from dalsegno.local.supervisor import Supervisor, stop_leftovers

__all__ = ["EngineStatus", "down", "ensure_engine", "idle_timeout", "status", "up"]

IDLE_TIMEOUT_VARIABLE = "DALSEGNO_IDLE_TIMEOUT"
_IDLE_TIMEOUT_S = 1800.0
_ANSWER_S = 10.0
_ANSWER_POLL_S = 0.05
_STOP_S = 120.0

_use = threading.Lock()
_used: dict[EngineHome, FileLock] = {}


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What ``status`` found.

    Attributes:
        home: The engine's folder.
        running: Whether its supervisor lives.
        pid: The supervisor's PID.
        address: Where its planner serves.
        database_url: Connection string of its Postgres.
        version: The version of Dal Segno that it runs.
    """

    home: Path
    running: bool
    pid: int | None = None
    address: str | None = None
    database_url: str | None = None
    version: str | None = None


def ensure_engine() -> str:
    """Returns the planner's address, starting the engine if none answers, and keeps it for this process.

    May be called by any number of processes at once: one of them starts the engine, the others wait for it.

    Raises:
        BackendError: The engine does not start; the message ends with the last lines of its log.
    """
    home = EngineHome.from_environment()
    home.create()
    # The lock passes on to the supervisor that is started, which holds it until it is ready or dead: were
    # this process killed while it waits, the next one would still find a start under way and wait for its
    # end.
    with FileLock.acquire(home.start_lock) as start_lock:
        state = _answering(home)
        if state is not None and state.version != installed_version() and _is_unused(home):
            _stop(home, state)
            state = None
        _use_for_life(home)
        return state.address if state is not None else _spawn(home, start_lock)


def up(*, foreground: bool = True, announce: Callable[[str], None] = lambda address: None) -> None:
    """Starts the engine: in this process until interrupted, or in the background like ``ensure_engine``.

    In the foreground it stays however long nobody uses it, unless ``DALSEGNO_IDLE_TIMEOUT`` says otherwise.

    Args:
        foreground: Must be called in the main thread if true.
        announce: Called with the planner's address once that serves.

    Raises:
        StateError: An engine of this home runs already, and this one was to run in the foreground.
        BackendError: The engine does not start, or could not be kept running.
    """
    if not foreground:
        announce(ensure_engine())
        return
    home = EngineHome.from_environment()
    home.create()
    with FileLock.acquire(home.start_lock) as start_lock:
        state = _running(home)
        if state is not None:
            raise StateError(
                f"The engine of {home.root} runs already: process {state.supervisor.pid}, serving "
                f"{state.address}. Stop it first: dalsegno down."
            )

        def ready(address: str) -> None:
            start_lock.close()
            announce(address)

        Supervisor(home, idle_timeout_s=idle_timeout(default=0.0), announce=ready).run()


def down() -> bool:
    """Stops the engine, whoever uses it, and returns whether there was anything to stop."""
    home = EngineHome.from_environment()
    if not home.root.exists():
        return False
    with FileLock.acquire(home.start_lock):
        state = _running(home)
        if state is not None:
            _stop(home, state)
            return True
        return (home.root / "postgres").exists() and _stop_leftovers(home)


def status() -> EngineStatus:
    """Tells whether the engine of this home runs, without starting or waiting for anything."""
    home = EngineHome.from_environment()
    state = EngineState.read(home.state_file)
    if state is None or state.supervisor.find() is None:
        return EngineStatus(home=home.root, running=False)
    return EngineStatus(
        home=home.root,
        running=True,
        pid=state.supervisor.pid,
        address=state.address,
        database_url=state.database_url,
        version=state.version,
    )


def idle_timeout(*, default: float = _IDLE_TIMEOUT_S) -> float:
    """Seconds without users after which the engine stops, from ``DALSEGNO_IDLE_TIMEOUT``; 0 means never.

    Raises:
        UsageError: The variable holds no such number.
    """
    text = os.environ.get(IDLE_TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(
            f"{IDLE_TIMEOUT_VARIABLE} is {text!r}; expected a number of seconds, 0 to keep the engine running."
        )
    return seconds


# -- who is there; each of these is called with the start lock held ------------------------------------------


def _running(home: EngineHome) -> EngineState | None:
    """The state of the living engine; one that is stopping by itself is waited for."""
    engine_lock = FileLock.try_acquire(home.engine_lock)
    if engine_lock is None:
        # Holding the start lock, we know that no engine is starting: what has no state any more is about to
        # end.
        state = EngineState.read(home.state_file)
        if state is not None:
            return state
        engine_lock = FileLock.acquire(home.engine_lock)
    engine_lock.close()
    return None


def _answering(home: EngineHome) -> EngineState | None:
    """The state of the living engine whose planner takes connections; one that does not is stopped."""
    deadline = time.monotonic() + _ANSWER_S
    while (state := _running(home)) is not None:
        FileLock.acquire(home.recovery_lock, shared=True).close()  # held while a planner that died is replaced
        if _takes_connections(state.address):
            return state
        if time.monotonic() > deadline:
            _stop(home, state)
            return None
        time.sleep(_ANSWER_POLL_S)  # its supervisor has yet to notice; a socket that is not there has no event
    return None


def _takes_connections(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_S)
        try:
            probe.connect(address.removeprefix("unix:"))
        except OSError:
            return False
        return True


def _stop(home: EngineHome, state: EngineState) -> None:
    supervisor = state.supervisor.find()
    if supervisor is None:
        raise BackendError(
            f"{home.engine_lock} is held by an engine that cannot be seen from here, perhaps in another "
            f"container. Stop it there, or set {HOME_VARIABLE} to a folder of your own."
        )
    end(supervisor, grace_s=_STOP_S)


def _stop_leftovers(home: EngineHome) -> bool:
    """Stops the planner and the Postgres of a supervisor that was killed."""
    postgres = embedded_postgres(home)
    stopped = stop_leftovers(home, postgres)
    remove_socket_folder(postgres.socket_dir)
    return stopped


def _is_unused(home: EngineHome) -> bool:
    if home in _used:
        return False
    alone = FileLock.try_acquire(home.users_lock)
    if alone is None:
        return False
    alone.close()
    return True


def _use_for_life(home: EngineHome) -> None:
    with _use:
        if home not in _used or not _used[home].is_of(home.users_lock):
            _used[home] = FileLock.acquire(home.users_lock, shared=True)
        os.utime(home.users_lock)


# -- starting ------------------------------------------------------------------------------------------------


def _spawn(home: EngineHome, start_lock: FileLock) -> str:
    """Starts a supervisor that outlives this process, and waits for its word."""
    idle_timeout()  # a bad value is this caller's to hear of
    log_file = home.logs / "engine.log"
    hearing, saying = os.pipe()
    with os.fdopen(hearing, encoding="utf-8", errors="replace") as word:
        try:
            with open_log(log_file) as log:
                log_start = log_file.stat().st_size
                supervisor = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", "dalsegno.local", "run"),
                        *("--ready-fd", str(saying), "--start-lock-fd", str(start_lock.fd)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=home.root,
                    env=_environment(home),
                    pass_fds=(saying, start_lock.fd),
                    start_new_session=True,
                )
        finally:
            os.close(saying)
        said, _, rest = word.read().partition(" ")
    if said == "ready":
        supervisor.returncode = 0  # it outlives this process, and is not this object's to wait for
        return rest.strip()
    supervisor.wait()
    why = rest.strip() if said == "error" else f"it ended before it was ready.\n{last_lines(log_file, since=log_start)}"
    raise BackendError(f"The local engine of {home.root} did not start: {why}")


def _environment(home: EngineHome) -> dict[str, str]:
    environment = {**os.environ, HOME_VARIABLE: str(home.root)}
    if paths := environment.get("PYTHONPATH"):  # the supervisor works in another folder
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep))
    return environment
