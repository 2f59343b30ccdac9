"""The processes of a run: Postgres, planners and workers, with doors between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from dalsegno.local.postgres import SOCKET_NAME, SUPERUSER, EmbeddedPostgres
from dalsegno.local.postmaster import find_postmaster
from dalsegno.local.processes import wait_ended
from tests.chaos import code, journal
from tests.chaos.schedule import LEASE_S
from tests.doors import Door, Doors
from tests.postgres import EMBEDDED_MAJOR, find_postgres, local_postgres

PROJECT = "chaos"
_ROOT = Path(__file__).parents[2]
_ENDS_WITHIN_S = 60.0


class Slot:
    """A place for one process, which is started again when it has gone."""

    def __init__(self, name: str, command: list[str], settings: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._settings = settings
        self._log = log
        self.process: psutil.Popen | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", *self._command],
                env={**os.environ, **self._settings},
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; return whether there was a process to take it."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return True

    def wait_ended(self, seconds: float = _ENDS_WITHIN_S) -> bool:
        """Wait until the process has ended."""
        return self.process is None or wait_ended(self.process, seconds)


class System:
    """Everything but the clients.

    Args:
        folder: Where all files are; the path has to be short, for sockets.
        planners: How many planners there are.
        workers: How many workers there are.
    """

    def __init__(self, folder: Path, planners: int, workers: int) -> None:
        installation = find_postgres(EMBEDDED_MAJOR)
        assert installation is not None
        # What survives the death of a process is what is looked at: nothing here takes the machine down.
        self.postgres: EmbeddedPostgres = local_postgres(
            installation, folder, settings={"fsync": "off", "max_connections": "200", "log_lock_waits": "on"}
        )
        self.journal = folder / "journal"
        self.logs = folder / "logs"
        for made in (self.journal, self.logs):
            made.mkdir()
        self._folder = folder
        self.doors = Doors()
        sockets = [folder / f"p{number}.sock" for number in range(planners)]
        self.for_workers = self.doors.open(*sockets)
        self.for_clients = self.doors.open(*sockets)
        postgres_socket = self.postgres.socket_dir / SOCKET_NAME
        self.to_postgres = [self.doors.open(postgres_socket) for _ in sockets]
        self.planners = [self._planner(number, sockets[number]) for number in range(planners)]
        self.workers = [self._worker(number) for number in range(workers)]

    @property
    def dsn(self) -> str:
        """The database, not through a door."""
        return self.postgres.dsn_of("postgres")

    @property
    def address(self) -> str:
        """Where clients connect."""
        return _address(self.for_clients)

    @property
    def slots(self) -> list[Slot]:
        """All processes but Postgres."""
        return [*self.planners, *self.workers]

    def start(self) -> None:
        """Start everything that does not run."""
        self.postgres.start()
        for slot in self.slots:
            slot.start()

    def kill_postgres(self, number: signal.Signals) -> bool:
        """Send a signal to the postmaster; return whether there was one."""
        postmaster = find_postmaster(self.postgres.data_dir)
        if postmaster is None:
            return False
        postmaster.send_signal(number)
        return wait_ended(postmaster, _ENDS_WITHIN_S)

    def drain_workers(self) -> list[str]:
        """Tell all workers to end; return the names of those that did not."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        return [worker.name for worker in self.workers if not worker.wait_ended()]

    def stop(self) -> None:
        """Stop everything."""
        for slot in self.slots:
            slot.signal(signal.SIGCONT)
            slot.signal(signal.SIGTERM)
        for slot in self.slots:
            if not slot.wait_ended(10.0):
                slot.signal(signal.SIGKILL)
                slot.wait_ended()
        self.doors.close()
        self.postgres.stop()

    def _planner(self, number: int, socket: Path) -> Slot:
        settings = {
            "DALSEGNO_DATABASE_URL": f"postgresql://{SUPERUSER}@127.0.0.1:{self.to_postgres[number].port}/postgres",
            "DALSEGNO_LISTEN": f"unix:{socket}",
            "DALSEGNO_OBJECT_STORE": (self._folder / "objects").as_uri(),
            "DALSEGNO_LEASE_DURATION": str(LEASE_S),
            "DALSEGNO_HEARTBEAT_INTERVAL": str(LEASE_S / 6),
            "DALSEGNO_ACCEPT_WITHIN": str(LEASE_S / 2),
            "DALSEGNO_POLL_INTERVAL": "0.3",
            "DALSEGNO_STOP_GRACE": "1",
        }
        return Slot(f"planner {number}", ["dalsegno_planner"], settings, self.logs / f"planner{number}.log")

    def _worker(self, number: int) -> Slot:
        command = [
            "dalsegno_executor", code.__name__, "--address", _address(self.for_workers), "--project", PROJECT,
            "--processes", "1", "--slots", "2", "--grace", "10",
        ]  # fmt: skip
        settings = {journal.FOLDER_SETTING: str(self.journal)}
        return Slot(f"worker {number}", command, settings, self.logs / f"worker{number}.log")


def _address(door: Door) -> str:
    return f"127.0.0.1:{door.port}"
