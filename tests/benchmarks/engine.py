"""The system that is measured: an embedded engine of its own, its planner, and workers, all real processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from dalsegno.local import down, ensure_engine
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.postmaster import find_postmaster
from dalsegno.local.state import EngineState
from tests.benchmarks.processes import LoggedProcess
from tests.postgres import EMBEDDED_MAJOR

PROJECT = "benchmarks"
CODE = "tests.benchmarks.flows"

_CONNECTED = "connected to the planner"


class Isolation(StrEnum):
    """Where a worker runs its steps."""

    THREADS = "thread"
    PROCESSES = "process"

    @property
    def plural(self) -> str:
        """How figures say it."""
        return {Isolation.THREADS: "threads", Isolation.PROCESSES: "processes"}[self]


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine.

    Attributes:
        home: Its folder.
        address: Where its planner serves.
        database_url: Of its Postgres.
    """

    home: EngineHome
    address: str
    database_url: str

    @property
    def planner(self) -> psutil.Process:
        """The planner's process."""
        state = EngineState.read(self.home.state_file)
        found = state.planner.find() if state is not None else None
        if found is None:
            raise RuntimeError(f"the planner has ended; see {self.home.logs / 'planner.log'}")
        return found

    @property
    def postgres(self) -> list[psutil.Process]:
        """The processes of its Postgres, the postmaster first."""
        postmaster = find_postmaster((self.home.root / "postgres" / str(EMBEDDED_MAJOR)).resolve())
        if postmaster is None:
            raise RuntimeError(f"Postgres has ended; see {self.home.logs}")
        return [postmaster, *postmaster.children(recursive=True)]


class Worker:
    """One executor for the measured code.

    Args:
        engine: Whose Postgres keeps what it does.
        isolation: Where it runs steps.
        options: Further options of its command line.
        address: What it connects to: the engine's planner, unless it is told otherwise.
    """

    def __init__(self, engine: Engine, isolation: Isolation, *options: str, address: str = "") -> None:
        self._running = LoggedProcess(
            engine.home.logs / f"worker-{isolation}.log",
            *("dalsegno_executor", CODE, "--isolation", isolation.value),
            *("--address", address or engine.address, "--project", PROJECT, *options),
        )

    def wait_until_connected(self) -> None:
        """Waits until a planner has welcomed it: from then on there is somebody for the code."""
        self._running.wait_for(_CONNECTED)

    def processes(self) -> list[psutil.Process]:
        """Its stream process, then its runners."""
        process = self._running.process
        return [psutil.Process(process.pid), *process.children(recursive=True)]

    def last_words(self) -> str:
        """The end of what it wrote."""
        return self._running.last_words()

    def stop(self) -> None:
        """Lets it drain, and kills it if that takes too long."""
        self._running.stop()


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Runs an engine in a folder of its own, which is removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="dalsegno-bench-"))
    root.chmod(0o711)  # Postgres runs as another account where we are root, and has to come there
    os.environ[HOME_VARIABLE] = str(root / "home")
    os.environ["DALSEGNO_PROJECT"] = PROJECT
    os.environ["DALSEGNO_IDLE_TIMEOUT"] = "60"  # should this process be killed
    os.environ.pop("DALSEGNO_ADDRESS", None)
    try:
        address = ensure_engine()
        home = EngineHome.from_environment()
        state = EngineState.read(home.state_file)
        assert state is not None, "an engine that serves has said so"
        # Told the address, clients are just clients; otherwise this process would join as an executor.
        os.environ["DALSEGNO_ADDRESS"] = address
        yield Engine(home, address, state.database_url)
    finally:
        down()
        shutil.rmtree(root, ignore_errors=True)


def keep_logs(engine: Engine, folder: Path) -> None:
    """Copies the logs of all processes, for whoever wants to know why something was not measured."""
    shutil.copytree(engine.home.logs, folder, dirs_exist_ok=True)


def memory_mb(process: psutil.Process) -> float:
    """Returns the resident memory of a process."""
    return float(process.memory_info().rss) / 1e6
