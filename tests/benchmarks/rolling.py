"""A rolling restart: how long no step completes while planners are restarted one after the other, under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dalsegno import Client, Execution
from tests.benchmarks import budgets
from tests.benchmarks.database import longest_pause_s, now
from tests.benchmarks.engine import PROJECT
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.fleet import running_fleet
from tests.benchmarks.flows import chain_flow, independent
from tests.benchmarks.samples import Samples
from tests.benchmarks.session import WAIT_S, Session

_PLANNERS = 3
_EXECUTORS = 2
_CHAIN = 20
_BULK = 500
_BETWEEN = 3
"""How many executions of each customer end between two restarts."""


@dataclass(eq=False)
class _Customer(threading.Thread):
    """Runs one execution after the other, and notes how long each took.

    Attributes:
        start_one: Starts an execution.
        took: Seconds.
        failed: Why one did not complete.
    """

    start_one: Callable[[Client], Execution]
    addresses: str
    over: threading.Event
    took: list[float] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._progress = threading.Condition()

    def run(self) -> None:
        try:
            with Client(self.addresses, PROJECT) as client:
                while not self.over.is_set():
                    begin = time.perf_counter()
                    client.executions.wait(self.start_one(client), timeout=WAIT_S)
                    with self._progress:
                        self.took.append(time.perf_counter() - begin)
                        self._progress.notify_all()
        except Exception as error:  # noqa: BLE001 - raised again where it is noticed
            self.failed.append(error)
            with self._progress:
                self._progress.notify_all()

    def ends(self, more: int) -> None:
        """Wait until so many more of its executions have ended."""
        with self._progress:
            wanted = len(self.took) + more
            if not self._progress.wait_for(lambda: len(self.took) >= wanted or self.failed, WAIT_S):
                raise TimeoutError(f"{more} executions have not ended in {WAIT_S:.0f} s")
        if self.failed:
            raise self.failed[0]


def rolling_restart(session: Session) -> Iterator[Figure]:
    """Three planners; executors and clients know them all."""
    over = threading.Event()
    with running_fleet(session.engine, _PLANNERS, _EXECUTORS, spread=False) as fleet:
        addresses = ",".join(planner.address for planner in fleet.planners)
        starts = (
            lambda client: client.executions.start(chain_flow, _CHAIN),
            lambda client: client.executions.start(independent, _BULK),
        )
        customers = [_Customer(start_one, addresses, over) for start_one in starts]
        begin = now(session.engine.database_url)
        for customer in customers:
            customer.start()
        try:
            for customer in customers:
                customer.ends(_BETWEEN)
            quiet = longest_pause_s(session.engine.database_url, begin)
            flows, since = len(customers[0].took), now(session.engine.database_url)
            for number, planner in enumerate(fleet.planners, start=1):
                session.say(f"  restarting planner {number} of {_PLANNERS}")
                planner.restart()
                for customer in customers:
                    customer.ends(_BETWEEN)
            pause = longest_pause_s(session.engine.database_url, since)
        finally:
            over.set()
            for customer in customers:
                customer.join()
    yield Figure("longest pause in completed steps, before", Unit.SECONDS, Samples.of([quiet]))
    yield Figure(
        f"longest pause in completed steps, {_PLANNERS} planners restarted in turn",
        Unit.SECONDS,
        Samples.of([pause]),
        budgets.PAUSE_OF_A_ROLLING_RESTART,
    )
    slowest = max(customers[0].took[flows:])
    yield Figure(f"flow of {_CHAIN} steps, the slowest meanwhile", Unit.SECONDS, Samples.of([slowest]))
