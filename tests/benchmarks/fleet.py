"""Planners and executors of which there are several, on the Postgres of the engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil

from dalsegno import Client
from tests.benchmarks.engine import PROJECT, Engine, Isolation, Worker
from tests.benchmarks.processes import LoggedProcess
from tests.benchmarks.wire import Wire, started_independent

_READY = "ready "
_WARM_UP_STEPS = 2_000
_WARM_S = 60.0

_numbers = itertools.count(1)


class Planner:
    """A planner beside that of the engine.

    Attributes:
        address: Where it serves; the same after a restart.
    """

    def __init__(self, engine: Engine) -> None:
        number = next(_numbers)
        self.address = f"unix:{engine.home.root / f'planner{number}.sock'}"
        self._log = engine.home.logs / f"planner{number}.log"
        self._settings = {
            "DALSEGNO_DATABASE_URL": engine.database_url,
            "DALSEGNO_OBJECT_STORE": engine.home.objects.as_uri(),
            "DALSEGNO_LISTEN": self.address,
        }
        self._start()

    @property
    def process(self) -> psutil.Process:
        """The process that serves at present."""
        return psutil.Process(self._running.process.pid)

    def restart(self) -> None:
        """Has it end by itself, and starts another one in its place."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """Has it end."""
        self._running.stop()

    def _start(self) -> None:
        self._running = LoggedProcess(self._log, "dalsegno_planner", **self._settings)
        self._running.wait_for(_READY)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs.

    Attributes:
        planners: Those that the executors are connected to.
        workers: The executors.
        client: Knows all the planners.
        wire: The first of the planners, without the SDK.
    """

    planners: Sequence[Planner]
    workers: Sequence[Worker]
    client: Client
    wire: Wire

    def run_independent(self, count: int) -> str:
        """Runs a pipeline of steps that wait for nothing, to its end, and returns its ID."""
        execution = self.wire.start(started_independent(count))
        self.client.executions.wait(execution, timeout=_WARM_S + count / 500)
        return execution


@contextmanager
def running_fleet(
    engine: Engine, planners: int, executors: int, *, isolation: Isolation = Isolation.THREADS, spread: bool = True
) -> Iterator[Fleet]:
    """Runs a fleet.

    Args:
        engine: Whose Postgres it uses.
        planners: How many there are.
        executors: How many there are; they have run steps when the block begins.
        isolation: Where they run steps.
        spread: Whether each executor knows one planner, so that they are spread evenly; otherwise each knows all.
    """
    with ExitStack() as stack:
        serving = [Planner(engine) for _ in range(planners)]
        for planner in serving:
            stack.callback(planner.stop)
        everywhere = ",".join(planner.address for planner in serving)
        workers = []
        for number in range(executors):
            address = serving[number % planners].address if spread else everywhere
            workers.append(Worker(engine, isolation, address=address))
            stack.callback(workers[-1].stop)
        for worker in workers:
            worker.wait_until_connected()
        client = stack.enter_context(Client(everywhere, PROJECT))
        wire = Wire(serving[0].address)
        stack.callback(wire.close)
        fleet = Fleet(serving, workers, client, wire)
        if workers:
            fleet.run_independent(_WARM_UP_STEPS)
        yield fleet
