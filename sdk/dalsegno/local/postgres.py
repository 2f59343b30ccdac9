"""A Postgres server of our own on one data folder: made, started, found again and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil

from dalsegno.errors import BackendError
from dalsegno.local.accounts import Account, credentials
from dalsegno.local.configuration import OWN_SETTINGS_FILE, OWN_SETTINGS_TEXT, render
from dalsegno.local.initialisation import DATABASE, SUPERUSER, ensure_data_folder, server_environment
from dalsegno.local.installation import PostgresInstallation, find_embedded, find_installed
from dalsegno.local.locks import FileLock
from dalsegno.local.logs import last_lines, open_log
from dalsegno.local.postmaster import PID_FILE, Serves, find_orphans, find_postmaster, read_pid_file, serves
from dalsegno.local.processes import clear_away, end, ends_with_parent, living, wait_ended

__all__ = [
    "DATABASE",
    "SOCKET_NAME",
    "SUPERUSER",
    "EmbeddedPostgres",
    "PostgresInstallation",
    "find_embedded",
    "find_installed",
]

SOCKET_NAME = ".s.PGSQL.5432"

_STATUS_POLL_S = 0.02  # a starting server has no event but its status line; its end is one, and interrupts the wait
_PROGRESS_LOOK_S = 1.0
_FAST_STOP_S = 60.0
_ORPHANS_END_S = 5.0
_FAST, _IMMEDIATE = signal.SIGINT, signal.SIGQUIT


class EmbeddedPostgres:
    """One data folder, its server, and what keeps concurrent scripts from harming either.

    Every method may be called by any number of processes at the same time, and after any of them was killed.

    Args:
        installation: The binaries. Their major version must be that of the data folder, if there is one.
        data_dir: Made by the first start. The folder that holds it must exist and admit ``account``.
        socket_dir: A folder with mode 0700, of ``account``, for the server's only socket.
        account: Who the server runs as, where the caller is root; see ``accounts``.
        log_file: Where the server writes; by default beside the data folder.
        settings: Server settings on top of those of ``configuration``.
        die_with_parent: Has the kernel stop the server when the process that starts it ends (Linux only). The
            caller must be that process's main thread, and the only one.
        durable_initialisation: ``False`` leaves it to the operating system to write out a new data folder.
        stall_limit_s: How long a start may go without any sign of progress; a recovery that gets on may take
            as long as it needs.
    """

    def __init__(
        self,
        installation: PostgresInstallation,
        data_dir: Path,
        socket_dir: Path,
        *,
        account: Account | None = None,
        log_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
        die_with_parent: bool = False,
        durable_initialisation: bool = True,
        stall_limit_s: float = 120.0,
    ) -> None:
        self.installation = installation
        # Resolved, so that everyone who means this folder writes the same path on the command line.
        self.data_dir = data_dir.parent.resolve() / data_dir.name
        self.socket_dir = socket_dir.resolve()
        self.log_file = log_file or self.data_dir.with_name(f"{data_dir.name}.log")
        self._account = account
        self._settings = dict(settings or {})
        self._die_with_parent = die_with_parent
        self._durable_initialisation = durable_initialisation
        self._stall_limit_s = stall_limit_s
        self._child: psutil.Process | None = None

    @property
    def dsn(self) -> str:
        """The connection string of the database ``dalsegno``."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """The connection string of any database of this server."""
        where = urlencode({"host": str(self.socket_dir), "user": SUPERUSER})
        return f"postgresql:///{quote(database)}?{where}"

    def is_running(self) -> bool:
        """Whether the server is up and accepts connections."""
        return self.is_alive() and self._says_ready()

    def is_alive(self) -> bool:
        """Whether the server's postmaster lives; it may still be starting."""
        return find_postmaster(self.data_dir) is not None

    def start(self, *, interrupted: Callable[[], bool] = lambda: False) -> str:
        """Starts the server unless it runs, waits until it accepts connections, and returns ``dsn``.

        Args:
            interrupted: Asked while waiting; the wait is given up, and the server stopped, once it is true.

        Raises:
            BackendError: The data folder is of another major version or in use, or the server did not start.
        """
        with self._lock():
            postmaster = self._find_staying()
            if postmaster is None:
                ensure_data_folder(
                    self.data_dir, self.installation, self._account, durable=self._durable_initialisation
                )
                with self._claim() as claim:
                    postmaster = self._launch(claim)
            self._await_ready(postmaster, interrupted)
        return self.dsn

    def stop(self) -> bool:
        """Stops the server, disconnecting its clients, and returns whether there was one."""
        # Our own is not looked for by its folder, which may have been removed meanwhile.
        child, self._child = self._child, None
        if child is not None:
            lived = child.is_running() and child.status() != psutil.STATUS_ZOMBIE
            if lived:
                _stop(child)
            clear_away(child)
            if lived:
                return True
        if not self.data_dir.exists():
            return False
        with self._lock():
            postmaster = find_postmaster(self.data_dir)
            if postmaster is not None:
                _stop(postmaster)
                return True
            return self._end_orphans()

    def _configure(self) -> None:
        text = render(
            major=self.installation.major,
            data_dir=self.data_dir,
            socket_dir=self.socket_dir,
            settings=self._settings,
        )
        self._write("postgresql.conf", text)
        if not (self.data_dir / OWN_SETTINGS_FILE).exists():
            self._write(OWN_SETTINGS_FILE, OWN_SETTINGS_TEXT)

    def _write(self, name: str, text: str) -> None:
        fd, staging = tempfile.mkstemp(prefix=f".{name}.", dir=self.data_dir)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        if self._account is not None:
            os.chown(staging, self._account.uid, self._account.gid)
        Path(staging).rename(self.data_dir / name)

    def _lock(self) -> FileLock:
        return FileLock.acquire(self.data_dir.with_name(f"{self.data_dir.name}.lock"))

    @contextlib.contextmanager
    def _claim(self) -> Iterator[FileLock]:
        """Holds the claim to the data folder, which all processes of the server inherit and keep."""
        self._end_orphans()
        claim = FileLock.try_acquire(self._claim_file)
        if claim is None:
            raise BackendError(
                f"{self.data_dir} is in use by a process that cannot be seen from here, perhaps in another "
                "container. Stop it, or set DALSEGNO_HOME to a folder of your own."
            )
        with claim:
            self._disown_strangers()
            yield claim

    @property
    def _claim_file(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.claim")

    def _find_staying(self) -> psutil.Process | None:
        """The running postmaster; one that is on its way out is waited for first."""
        postmaster, recorded = find_postmaster(self.data_dir), read_pid_file(self.data_dir)
        if postmaster is not None and recorded is not None and recorded.is_stopping:
            _stop(postmaster)
            return None
        return postmaster

    def _end_orphans(self) -> bool:
        """Ends what a postmaster that was killed has left behind, and returns whether there was anything."""
        free = FileLock.try_acquire(self._claim_file)
        if free is not None:
            free.close()
            return False
        # Most end by themselves at once; one that is in the middle of a query notices only after it.
        deadline = time.monotonic() + _ORPHANS_END_S
        orphans = find_orphans(self.data_dir)
        for process in orphans:
            if not wait_ended(process, deadline - time.monotonic()):
                end(process, polite=_IMMEDIATE, grace_s=_ORPHANS_END_S)
        return bool(orphans)

    def _disown_strangers(self) -> None:
        """Removes lock files whose PID now is a stranger's, or a zombie's: Postgres would believe them.

        A PID file that names no process is left to Postgres, which makes checks of its own.
        """
        if self._child is not None:
            wait_ended(self._child, _ORPHANS_END_S)  # holding the claim, we know that it has ended
            clear_away(self._child)
        (self.socket_dir / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)
        recorded = read_pid_file(self.data_dir)
        if recorded is None or not psutil.pid_exists(recorded.pid):
            return
        stranger = living(recorded.pid)
        if stranger is not None and serves(stranger, self.data_dir) is Serves.UNKNOWN:
            raise BackendError(
                f"{self.data_dir / PID_FILE} names process {stranger.pid}, a Postgres that was started by "
                "hand and may serve this folder. Stop it, or remove the file if the process has nothing to "
                "do with it."
            )
        (self.data_dir / PID_FILE).unlink()

    def _launch(self, claim: FileLock) -> psutil.Process:
        self._configure()
        with open_log(self.log_file) as log:
            child = subprocess.Popen(
                [self.installation.program("postgres"), "-D", str(self.data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=server_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which stops us in order
                pass_fds=(claim.fd,),
                preexec_fn=ends_with_parent(_FAST) if self._die_with_parent else None,
                **credentials(self._account),
            )
        self._child = psutil.Process(child.pid)
        child.returncode = 0  # psutil waits for the server, which may also outlive us: this object need not care
        return self._child

    def _await_ready(self, postmaster: psutil.Process, interrupted: Callable[[], bool]) -> None:
        progress, next_look, last_progress = self._progress(postmaster), 0.0, time.monotonic()
        while not self._says_ready(postmaster.pid):
            if wait_ended(postmaster, _STATUS_POLL_S):
                raise BackendError(f"PostgreSQL ended while it started.\n{last_lines(self.log_file)}")
            now = time.monotonic()
            if now >= next_look:
                latest, next_look = self._progress(postmaster), now + _PROGRESS_LOOK_S
                if latest != progress:
                    progress, last_progress = latest, now
            stalled = now - last_progress > self._stall_limit_s
            if stalled or interrupted():
                _stop(postmaster)
                why = f"made no progress for {self._stall_limit_s:.0f} s" if stalled else "was interrupted"
                log = last_lines(self.log_file)
                raise BackendError(f"The start of PostgreSQL {why}, so it was stopped.\n{log}")

    def _says_ready(self, pid: int | None = None) -> bool:
        recorded = read_pid_file(self.data_dir)
        return recorded is not None and recorded.is_ready and pid in (None, recorded.pid)

    def _progress(self, postmaster: psutil.Process) -> tuple[object, ...]:
        """Changes as long as a starting server gets on: what it logs and the processor time that it takes."""
        recorded = read_pid_file(self.data_dir)
        size = self.log_file.stat().st_size if self.log_file.exists() else 0
        return recorded, size, _processor_time(postmaster)


def _stop(postmaster: psutil.Process) -> None:
    # Fast disconnects the clients and writes a checkpoint. Immediate leaves recovery to the next start, and
    # ends a server that is stuck; end() kills at the very last.
    try:
        postmaster.send_signal(_FAST)
    except psutil.NoSuchProcess:
        return
    if not wait_ended(postmaster, _FAST_STOP_S):
        end(postmaster, polite=_IMMEDIATE, grace_s=2 * _ORPHANS_END_S)


def _processor_time(postmaster: psutil.Process) -> float:
    total = 0.0
    try:
        for process in (postmaster, *postmaster.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    except psutil.NoSuchProcess:
        return total
    return total
