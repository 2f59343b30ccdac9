"""Planners are restarted one after the other, while executors and clients that know all of them go on working."""

from __future__ import annotations

import random
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client
from tests.e2e.kills import flows as code
from tests.e2e.kills.history import read_history
from tests.e2e.test_kills import journal
from tests.e2e.test_worker import Process
from tests.names import NameServer

PROJECT = "rolling"
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
SECONDS = 60.0
LENGTH = 20


def port_of_nobody() -> int:
    """A port that is free on all hosts, and that no connection is given: while a planner is away it stays free."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(first_given // 2, first_given)
        with ExitStack() as stack, suppress(OSError):
            for host in HOSTS:
                stack.enter_context(socket.create_server((host, port)))
            return port


class Planners:
    """Planners on one database, on a port that is the same on several addresses of this machine."""

    def __init__(self, database: str, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._settings = {
            "DALSEGNO_DATABASE_URL": database,
            "DALSEGNO_OBJECT_STORE": (folder / "objects").as_uri(),
        }
        self.port = port_of_nobody()
        self._running = {host: self._start(f"{host}:{self.port}") for host in HOSTS}
        for planner in self._running.values():
            planner.line("ready ")

    @property
    def listed(self) -> str:
        """Their addresses, as a list."""
        return ",".join(f"{host}:{self.port}" for host in HOSTS)

    def restart(self, host: str) -> None:
        """Have one end by itself, and start another one in its place."""
        self._running[host].kill(signal.SIGTERM)
        assert self._running[host].ended() == 0
        self._running[host] = self._start(f"{host}:{self.port}")
        self._running[host].line("ready ")

    def _start(self, listen: str) -> Process:
        process = Process("dalsegno_planner", **self._settings, DALSEGNO_LISTEN=listen)
        self._stack.callback(process.close)
        return process


class Customer(threading.Thread):
    """Runs one execution after the other until it is told that it is over.

    Attributes:
        begun: What it has run.
        labels: What the steps of these write down.
        answered: Set whenever one of them has ended.
        failure: What went wrong.
    """

    def __init__(self, name: str, client: Client, folder: Path, over: threading.Event) -> None:
        super().__init__(name=name)
        self.begun: list[str] = []
        self.labels: list[str] = []
        self.answered = threading.Event()
        self.failure: Exception | None = None
        self._client = client
        self._folder = str(folder)
        self._over = over

    def run(self) -> None:
        try:
            while not self._over.is_set():
                for kind, work in (("flow", code.busy_flow), ("pipeline", code.busy_pipeline)):
                    self._see_through(kind, work)
        except Exception as error:  # noqa: BLE001 - raised again by the test
            self.failure = error
            self.answered.set()

    def _see_through(self, kind: str, work: Any) -> None:
        run = f"{self.name}.{kind}{len(self.begun)}"
        started = self._client.executions.start(work, self._folder, run, LENGTH)
        self.begun.append(started.exec_id)
        self.labels += [f"{run}.{number}" for number in range(LENGTH)]
        if kind == "pipeline":
            self.labels += [f"{run}.{number}.beside" for number in range(LENGTH)]
        assert self._client.executions.wait(started, SECONDS).result == LENGTH
        self.answered.set()

    def goes_on(self) -> None:
        """Wait until one more of its executions has ended."""
        self.answered.clear()
        ended = self.failure is not None or self.answered.wait(SECONDS)
        if self.failure is not None:
            raise self.failure
        assert ended, "nothing has ended"


@pytest.mark.timeout(300)  # six planners are started, while others work
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this machine has no 127.0.0.2")
@pytest.mark.semantics("7", "An executor or planner that dies loses nothing", "no result is recorded twice")
def test_a_rolling_restart_loses_and_doubles_nothing(database: str, tmp_path: Path) -> None:
    """Known as a list, and by a name with several addresses."""
    over = threading.Event()
    with ExitStack() as stack:
        planners = Planners(database, tmp_path, stack)
        named = stack.enter_context(NameServer(HOSTS)).target(planners.port)
        for address in (planners.listed, named):
            command = ("dalsegno_executor", code.__name__, "--project", PROJECT, "--processes", "1", "--slots", "4")
            worker = Process(*command, "--address", address)
            stack.callback(worker.close)
            worker.line("connected")
        customers = [
            Customer(name, stack.enter_context(Client(address, PROJECT)), tmp_path, over)
            for name, address in (("listed", planners.listed), ("named", named))
        ]
        for customer in customers:
            customer.start()
        try:
            for host in HOSTS:
                planners.restart(host)
                for customer in customers:
                    customer.goes_on()
        finally:
            over.set()
            for customer in customers:
                customer.join()
        assert [customer.failure for customer in customers] == [None, None]
    labels = [label for customer in customers for label in customer.labels]
    read_history(database, [one for customer in customers for one in customer.begun]).assert_whole(len(labels))
    runs = journal(tmp_path)
    assert set(runs) == set(labels)
    assert {label: pids for label, pids in runs.items() if len(pids) > 1} == {}
