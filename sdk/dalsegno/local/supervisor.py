"""Keeps one Postgres and one planner running, and ends both when it is asked to or nobody needs them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable

from dalsegno.errors import BackendError
from dalsegno.local.databases import embedded_postgres
from dalsegno.local.events import Events
from dalsegno.local.home import EngineHome
from dalsegno.local.locks import FileLock
from dalsegno.local.planner import PLANNER_MODULE, PlannerProcess
from dalsegno.local.postgres import EmbeddedPostgres
from dalsegno.local.processes import ProcessIdentity, end
from dalsegno.local.sockets import remove_socket_folder, socket_folder
from dalsegno.local.state import EngineState, installed_version

_log = logging.getLogger(__name__)

_PLANNER_SOCKET = "planner.sock"
_PLANNER_READY_S = 120.0
_LEFTOVER_GRACE_S = 20.0
_BACKOFF_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0)
_HEALTHY_AFTER_S = 60.0
_TICK_S = 5.0


class Supervisor:
    """One run of the engine.

    Args:
        home: Its folder.
        idle_timeout_s: Ends the engine after so many seconds in which no process used it; 0 never does.
        announce: Called with the planner's address once that serves.
    """

    def __init__(self, home: EngineHome, *, idle_timeout_s: float, announce: Callable[[str], None]) -> None:
        self._home = home
        self._idle_timeout_s = idle_timeout_s
        self._announce = announce
        self._planner: PlannerProcess | None = None
        self._planner_since = self._last_used = 0.0
        self._failures = 0

    def run(self) -> None:
        """Starts the engine, watches it, and returns when it has stopped.

        The caller holds the start lock until ``announce`` was called or this raised.

        Raises:
            BackendError: Postgres or the planner did not start, or could not be kept running.
        """
        with contextlib.ExitStack() as stack:
            self._released_last = stack.enter_context(contextlib.ExitStack())
            self._engine_lock = stack.enter_context(FileLock.acquire(self._home.engine_lock))
            self._events = stack.enter_context(Events())
            self._postgres = embedded_postgres(self._home, die_with_parent=True)
            stop_leftovers(self._home, self._postgres)
            stack.callback(remove_socket_folder, self._postgres.socket_dir)
            stack.callback(self._postgres.stop)
            self._start_postgres()
            stack.callback(self._stop_planner)
            with FileLock.acquire(self._home.recovery_lock):
                address = self._start_planner()
            stack.callback(self._forget)
            self._announce(address)
            self._watch()

    def _watch(self) -> None:
        self._last_used = time.time()
        next_tick = 0.0
        while not self._events.stop_requested and not self._has_lost_its_home():
            if not self._postgres.is_alive():
                _log.warning("PostgreSQL ended by itself; starting it again")
                self._start_postgres()
            if self._planner is None or self._planner.has_ended():
                self._recover_planner()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + self._tick_s
                if self._is_done():
                    return
            self._events.wait(self._tick_s)

    def _start_postgres(self) -> None:
        self._postgres.start(interrupted=lambda: self._events.stop_requested)

    # -- the planner -----------------------------------------------------------------------------------------

    def _start_planner(self) -> str:
        self._socket = socket_folder(self._home.sockets, _PLANNER_SOCKET) / _PLANNER_SOCKET
        self._socket.unlink(missing_ok=True)
        self._planner = PlannerProcess(
            environment={
                "DALSEGNO_DATABASE_URL": self._postgres.dsn,
                "DALSEGNO_LISTEN": f"unix:{self._socket}",
                "DALSEGNO_OBJECT_STORE": self._home.objects.as_uri(),
            },
            folder=self._home.root,
            log_file=self._home.logs / "planner.log",
            events=self._events,
        )
        address = self._planner.await_ready(_PLANNER_READY_S, clock=time.monotonic)
        self._planner_since = time.monotonic()
        EngineState(
            supervisor=ProcessIdentity.of(os.getpid()),
            planner=self._planner.identity,
            address=address,
            database_url=self._postgres.dsn,
            version=installed_version(),
        ).write(self._home.state_file)
        return address

    def _stop_planner(self) -> None:
        if self._planner is not None:
            self._planner.stop()
            self._planner = None
            self._socket.unlink(missing_ok=True)
            remove_socket_folder(self._socket.parent)

    def _recover_planner(self) -> None:
        """Replaces a planner that died; newcomers wait for it at the recovery lock.

        Raises:
            BackendError: It has died too often without having lived for a while.
        """
        if time.monotonic() - self._planner_since >= _HEALTHY_AFTER_S:
            self._failures = 0
        with FileLock.acquire(self._home.recovery_lock):
            while self._failures < len(_BACKOFF_S):
                if self._planner is not None:
                    _log.warning("the planner ended by itself; starting another\n%s", self._planner.last_lines())
                self._stop_planner()
                self._events.wait(_BACKOFF_S[self._failures])
                self._failures += 1
                try:
                    self._start_planner()
                except BackendError as error:
                    _log.warning("%s", error)
                else:
                    return
                if self._events.stop_requested:
                    return
        raise BackendError(f"The planner cannot be kept running; see {self._home.logs / 'planner.log'}.")

    # -- the end ---------------------------------------------------------------------------------------------

    @property
    def _tick_s(self) -> float:
        return min(_TICK_S, self._idle_timeout_s / 4 or _TICK_S)

    def _has_lost_its_home(self) -> bool:
        """Whether the home was removed: who comes next makes a new one and cannot see this engine."""
        return not self._engine_lock.is_of(self._home.engine_lock)

    def _is_done(self) -> bool:
        """Whether nobody has used the engine for the idle timeout.

        If so the start lock is kept to the very end: whoever comes meanwhile waits until everything has
        stopped, and starts it again.
        """
        if not self._idle_timeout_s:
            return False
        self._note_use()
        if time.time() - self._last_used < self._idle_timeout_s:
            return False
        start_lock = FileLock.try_acquire(self._home.start_lock)
        if start_lock is None:
            return False  # somebody is coming
        self._note_use()  # or came just now
        if time.time() - self._last_used < self._idle_timeout_s:
            start_lock.close()
            return False
        self._released_last.enter_context(start_lock)
        _log.info("nobody has used the engine for %.0f s; stopping", self._idle_timeout_s)
        return True

    def _note_use(self) -> None:
        unused = FileLock.try_acquire(self._home.users_lock)
        if unused is None:
            self._last_used = time.time()
        else:
            with unused:  # whoever came and went since the last look has left its time
                self._last_used = max(self._last_used, self._home.users_lock.stat().st_mtime)

    def _forget(self) -> None:
        state = EngineState.read(self._home.state_file)
        if state is not None and state.supervisor.pid == os.getpid():
            self._home.state_file.unlink()


def stop_leftovers(home: EngineHome, postgres: EmbeddedPostgres) -> bool:
    """Stops what a supervisor that was killed has left behind, and returns whether there was anything.

    The caller holds the engine lock, or the start lock and has seen that nobody holds the engine lock.
    """
    state = EngineState.read(home.state_file)
    planner = state.planner.find(running=PLANNER_MODULE) if state is not None else None
    if planner is not None:
        end(planner, grace_s=_LEFTOVER_GRACE_S)
    had_postgres = postgres.stop()
    home.state_file.unlink(missing_ok=True)
    return had_postgres or planner is not None
