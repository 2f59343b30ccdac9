"""A planner and a worker as processes, and the command line in this one."""

from __future__ import annotations

import io
import json
import os
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalsegno import Client
from dalsegno.cli.app import run
from tests.e2e.test_worker import Process

PROJECT = "bad-input"
FLOWS = "tests.e2e.bad_input.flows"


@dataclass(frozen=True)
class Printed:
    """What a command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> dict[str, Any]:
        """The error of the one document on standard output."""
        error = json.loads(self.stdout)["error"]
        assert isinstance(error, dict)
        return error


class Served:
    """A planner of a database, with a client of its own.

    Args:
        database: The connection string.
        folder: For its socket and its objects.
        stack: Ends the processes.
        **settings: More settings of the planner, without their prefix.
    """

    def __init__(self, database: str, folder: Path, stack: ExitStack, **settings: str) -> None:
        self.address = f"unix:{folder}/planner.sock"
        self.client = stack.enter_context(Client(self.address, PROJECT))
        self._stack = stack
        self._settings = {
            "DALSEGNO_DATABASE_URL": database,
            "DALSEGNO_LISTEN": self.address,
            "DALSEGNO_OBJECT_STORE": (folder / "objects").as_uri(),
            "DALSEGNO_POLL_INTERVAL": "0.2",
            **{f"DALSEGNO_{name.upper()}": value for name, value in settings.items()},
        }

    def planner(self) -> Process:
        """Start a planner by its command; it may have to wait for its database."""
        return self._started(Process("dalsegno.cli", "planner", **self._settings))

    def worker(self) -> Process:
        """Start a worker by its command, and wait until it is connected."""
        where = ("--address", self.address, "--project", PROJECT, "--processes", "1")
        worker = self._started(Process("dalsegno.cli", "worker", FLOWS, *where))
        worker.line("connected")
        return worker

    def command(self, *arguments: str) -> Printed:
        """Run a command in this process."""
        return command(*arguments, "--address", self.address, "--project", PROJECT)

    def execution_count(self) -> int:
        """How many executions there are."""
        return sum(1 for _ in self.client.executions.list())

    def _started(self, process: Process) -> Process:
        self._stack.callback(process.close)
        return process


def command(*arguments: str) -> Printed:
    """Run a command in this process, without a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(arguments)
    return Printed(code, out.getvalue(), err.getvalue())


def fifos(folder: Path) -> tuple[Path, Path]:
    """Make the FIFOs of a step that meets the test: one that it writes when it runs, one that it waits for."""
    for name in ("started", "go"):
        os.mkfifo(folder / name)
    return folder / "started", folder / "go"
