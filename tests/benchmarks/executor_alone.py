"""What a step that does nothing costs the executor, with a peer on the stream that costs it nothing to wait for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psutil

from tests.benchmarks.engine import Isolation, Worker
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.samples import Samples, timed
from tests.benchmarks.scripted_planner import ScriptedPlanner
from tests.benchmarks.session import Session

_STEPS = 10_000
_RUNS = 5
_GIVEN_UP_S = 60.0


def executor_alone(session: Session) -> Iterator[Figure]:
    """Processor time of the stream process and of the runners per step, and steps a second."""
    for isolation in (Isolation.THREADS, Isolation.PROCESSES):
        with ScriptedPlanner() as planner:
            worker = Worker(session.engine, isolation, address=planner.address)
            try:
                worker.wait_until_connected()
                planner.run(_STEPS, _GIVEN_UP_S)  # warm, and the prefetch window is open
                yield from _cost(planner, worker, isolation)
            finally:
                worker.stop()


def _cost(planner: ScriptedPlanner, worker: Worker, isolation: Isolation) -> Iterator[Figure]:
    stream, *runners = worker.processes()
    of_stream, of_runners, rates = [], [], []
    for _ in range(_RUNS):
        before = _cpu_ms([stream]), _cpu_ms(runners)
        seconds, _ = timed(lambda: planner.run(_STEPS, _GIVEN_UP_S))
        rates.append(_STEPS / seconds)
        of_stream.append((_cpu_ms([stream]) - before[0]) / _STEPS)
        of_runners.append((_cpu_ms(runners) - before[1]) / _STEPS)
    where = f"executor alone, {isolation.plural}"
    yield Figure(f"{where}: no-op steps", Unit.PER_SECOND, Samples.of(rates))
    yield Figure(f"{where}: processor time of the stream process a step", Unit.MILLISECONDS, Samples.of(of_stream))
    yield Figure(f"{where}: processor time of the runners a step", Unit.MILLISECONDS, Samples.of(of_runners))


def _cpu_ms(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times) * 1e3
