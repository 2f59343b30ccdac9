"""What a plan costs, by the size of the graph and of what is affected; and imports and exports of such graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import budgets
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.fleet import Fleet, running_fleet
from tests.benchmarks.memory_watch import MemoryWatch
from tests.benchmarks.samples import Samples, repeated, timed
from tests.benchmarks.session import Session
from tests.benchmarks.wire import CHAIN, SOURCE, first_link, imported_chains

_PLANS = 50
_WHOLE_PLANS = 3
_RATED_FROM = 100_000


def plans_by_size(session: Session) -> Iterator[Figure]:
    """Plans in graphs of 1,000 steps, of ten times as many, and so on."""
    for count in session.sizes:
        # A planner of its own for each: memory that has been used once is not given back.
        with running_fleet(session.engine, planners=1, executors=0) as fleet:
            yield from _of_size(fleet, count)


def _of_size(fleet: Fleet, count: int) -> Iterator[Figure]:
    messages = imported_chains(count)
    with MemoryWatch(fleet.planners[0].process) as watch:
        seconds, source = timed(lambda: fleet.wire.import_(messages))
    rate = Samples.of([count / seconds])
    # Of a small one it is the request that takes the time.
    budget = budgets.IMPORTED_STEPS if count >= _RATED_FROM else None
    yield Figure(f"import of {count:,} steps", Unit.PER_SECOND, rate, budget, size=count, series="import")
    yield _memory(f"planner, importing {count:,} steps", watch, count, "memory, import")
    with MemoryWatch(fleet.planners[0].process) as watch:
        yield _export(fleet, source, count)
    yield _memory(f"planner, exporting {count:,} steps", watch, count, "memory, export")
    yield _part(fleet, source, count)
    with MemoryWatch(fleet.planners[0].process) as watch:
        yield _everything(fleet, source, count)
    yield _memory(f"planner, planning {count:,} affected", watch, count, "memory, plan of everything")


def _export(fleet: Fleet, source: str, count: int) -> Figure:
    """The whole way, to a file: beside the planner, the client has its part."""
    with TemporaryDirectory(prefix="dalsegno-bench-") as folder:
        seconds, _ = timed(lambda: fleet.client.executions.export(source, Path(folder) / "record.jsonl"))
    rate = Samples.of([count / seconds])
    return Figure(f"export of {count:,} steps", Unit.PER_SECOND, rate, size=count, series="export")


def _part(fleet: Fleet, source: str, count: int) -> Figure:
    # Every plan is of another chain, so that none profits from the one before.
    chains = max((count - 2) // CHAIN, 1)
    roots = iter([first_link(number * chains // (_PLANS + 1)) for number in range(1, _PLANS + 1)])
    fleet.client.executions.plan(source, from_=first_link(0))
    plans = repeated(_PLANS, lambda: fleet.client.executions.plan(source, from_=next(roots)))
    name = f"plan, ≤ {CHAIN} affected of {count:,}"
    return Figure(name, Unit.MILLISECONDS, plans, budgets.PLAN_OF_A_PART, size=count, series="plan, ≤ 100 affected")


def _everything(fleet: Fleet, source: str, count: int) -> Figure:
    plans = repeated(_WHOLE_PLANS, lambda: fleet.client.executions.plan(source, from_=SOURCE))
    return Figure(
        f"plan, all {count:,} affected",
        Unit.SECONDS,
        plans.scaled(1e-3),
        budgets.PLAN_OF_EVERYTHING,
        size=count,
        series="plan, everything affected",
    )


def _memory(name: str, watch: MemoryWatch, size: int, series: str) -> Figure:
    return Figure(name, Unit.MEGABYTES, Samples.of([watch.peak_mb]), budgets.PLANNER_MEMORY, size=size, series=series)
