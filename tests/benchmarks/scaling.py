"""How cost goes with size: of the graph that is in flight, of the executors, of the planners."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import budgets
from tests.benchmarks.figures import Axis, Figure, Unit
from tests.benchmarks.fleet import Fleet, running_fleet
from tests.benchmarks.memory_watch import MemoryWatch
from tests.benchmarks.samples import Samples, timed
from tests.benchmarks.session import Session
from tests.benchmarks.wire import started_independent

_EXECUTORS = (1, 2, 4, 8)
_PLANNERS = (1, 2, 3)
_EXECUTORS_OF_PLANNERS = 3
_STEPS = 10_000
_RUNS = 3


def in_flight_by_size(session: Session) -> Iterator[Figure]:
    """Pipelines of steps that wait for nothing: starting them, running them, and the planner's memory in all of it."""
    for count in session.sizes:
        # A planner of its own for each: memory that has been used once is not given back.
        with running_fleet(session.engine, planners=1, executors=1) as fleet:
            yield from _in_flight(session, fleet, count)


def _in_flight(session: Session, fleet: Fleet, count: int) -> Iterator[Figure]:
    messages = started_independent(count)
    starts, rates = [], []
    with MemoryWatch(fleet.planners[0].process) as watch:
        for _ in range(_RUNS if count <= _STEPS else 1):
            seconds, execution = timed(lambda: fleet.wire.start(messages))
            session.say(f"  {count:,} steps started in {seconds:.1f} s")
            fleet.client.executions.wait(execution, timeout=60 + count / 500)
            starts.append(seconds)
            rates.append(count / fleet.wire.running_seconds(execution))
    yield Figure(f"start of {count:,} steps", Unit.SECONDS, Samples.of(starts), size=count, series="start")
    yield Figure(
        f"{count:,} steps in threads, claim to commit",
        Unit.PER_SECOND,
        Samples.of(rates),
        budgets.STEPS_THREADS if count >= _STEPS else None,
        size=count,
        series="steps, one executor of threads",
    )
    yield Figure(
        f"planner, {count:,} in flight",
        Unit.MEGABYTES,
        Samples.of([watch.peak_mb]),
        budgets.PLANNER_MEMORY,
        size=count,
        series="memory, in flight",
    )


def by_executors(session: Session) -> Iterator[Figure]:
    """Steps a second with one planner, and its memory, over executors."""
    for count in _EXECUTORS:
        with running_fleet(session.engine, planners=1, executors=count) as fleet:
            yield from _of_fleet(fleet, _counted(count, "executor"), count, Axis.EXECUTORS, "one planner")


def by_planners(session: Session) -> Iterator[Figure]:
    """Steps a second with as many executors, and the memory of one planner, over planners."""
    for count in _PLANNERS:
        with running_fleet(session.engine, planners=count, executors=_EXECUTORS_OF_PLANNERS) as fleet:
            others = _counted(_EXECUTORS_OF_PLANNERS, "executor")
            yield from _of_fleet(fleet, _counted(count, "planner"), count, Axis.PLANNERS, others)


def _of_fleet(fleet: Fleet, counted: str, count: int, axis: Axis, others: str) -> Iterator[Figure]:
    with MemoryWatch(fleet.planners[0].process) as watch:
        rates = [_STEPS / fleet.wire.running_seconds(fleet.run_independent(_STEPS)) for _ in range(_RUNS)]
    yield Figure(
        f"{_STEPS:,} steps, {counted}",
        Unit.PER_SECOND,
        Samples.of(rates),
        size=count,
        series=f"steps, {others}",
        axis=axis,
    )
    yield Figure(
        f"memory of a planner, {counted}",
        Unit.MEGABYTES,
        Samples.of([watch.peak_mb]),
        size=count,
        series=f"memory, {others}",
        axis=axis,
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
