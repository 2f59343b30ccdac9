"""How many steps a second, where none waits for another."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import budgets
from tests.benchmarks.engine import Isolation, Worker, memory_mb
from tests.benchmarks.figures import Budget, Figure, Unit
from tests.benchmarks.flows import independent
from tests.benchmarks.samples import Samples, timed
from tests.benchmarks.session import Session

_RUNS = 5
_LONG_RUNS = 3


def two_thousand(session: Session) -> Iterator[Figure]:
    """2,000 steps: from the pipeline's call to its return, and from the first claim to the last commit."""
    yield from _steps_a_second(session, 2_000, _RUNS)


def twenty_thousand(session: Session) -> Iterator[Figure]:
    """20,000 steps, the size that the budget speaks of."""
    yield from _steps_a_second(session, 20_000, _LONG_RUNS)


def _steps_a_second(session: Session, count: int, runs: int) -> Iterator[Figure]:
    for isolation, budget in (
        (Isolation.THREADS, budgets.STEPS_THREADS),
        (Isolation.PROCESSES, budgets.STEPS_PROCESSES),
    ):
        with session.worker(isolation) as worker:
            outside, inside = [], []
            for _ in range(runs):
                seconds, execution = timed(lambda: independent(count))
                outside.append(count / seconds)
                inside.append(count / session.wire.running_seconds(str(execution.exec_id)))
            where = f"{count:,} steps in {isolation.plural}"
            yield _rate(f"{where}, claim to commit", inside, budget, count, isolation.plural)
            yield _rate(f"{where}, call to return", outside, budgets.STEPS_FROM_CALL_TO_RETURN, count)
            yield from _memory(session, worker, where)


def _memory(session: Session, worker: Worker, after: str) -> Iterator[Figure]:
    stream, *runners = worker.processes()
    planner = Samples.of([memory_mb(session.engine.planner)])
    yield Figure(f"planner, after {after}", Unit.MEGABYTES, planner, budgets.PLANNER_MEMORY)
    yield Figure(f"executor, after {after}", Unit.MEGABYTES, Samples.of([memory_mb(stream)]))
    if runners:
        each = Samples.of(memory_mb(runner) for runner in runners)
        yield Figure(f"one of its runners, after {after}", Unit.MEGABYTES, each)


def _rate(name: str, values: list[float], budget: Budget, size: int, series: str = "call to return") -> Figure:
    return Figure(name, Unit.PER_SECOND, Samples.of(values), budget, size=size, series=f"steps, {series}")
