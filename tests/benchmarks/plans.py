"""What a plan costs, by the size of the graph and of what is affected; and importing graphs of that size."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import budgets
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.memory_watch import MemoryWatch
from tests.benchmarks.samples import Samples, repeated, timed
from tests.benchmarks.session import Session
from tests.benchmarks.wire import CHAIN, SOURCE, first_link, imported_chains

_PLANS = 50
_WHOLE_PLANS = 3


def hundred_thousand(session: Session) -> Iterator[Figure]:
    """Plans in a graph of 100,000 steps."""
    yield from _of_size(session, 100_000)


def side_by_side(session: Session) -> Iterator[Figure]:
    """Plans in graphs of 1,000, 100,000 and 1,000,000 steps."""
    for count in (1_000, 100_000, 1_000_000):
        yield from _of_size(session, count)


def _of_size(session: Session, count: int) -> Iterator[Figure]:
    messages = imported_chains(count)
    with MemoryWatch(session.engine.planner) as watch:
        seconds, source = timed(lambda: session.wire.import_(messages))
    rate = Samples.of([count / seconds])
    yield Figure(
        f"import of {count:,} steps", Unit.PER_SECOND, rate, budgets.IMPORTED_STEPS, size=count, series="import"
    )
    yield _memory(f"planner, importing {count:,} steps", watch, count, "memory, import")
    yield _part(session, source, count)
    with MemoryWatch(session.engine.planner) as watch:
        yield _everything(session, source, count)
    yield _memory(f"planner, planning {count:,} affected", watch, count, "memory, plan of everything")


def _part(session: Session, source: str, count: int) -> Figure:
    # Every plan is of another chain, so that none profits from the one before.
    chains = (count - 2) // CHAIN
    roots = iter([first_link(number * chains // (_PLANS + 1)) for number in range(1, _PLANS + 1)])
    session.client.executions.plan(source, from_=first_link(0))
    plans = repeated(_PLANS, lambda: session.client.executions.plan(source, from_=next(roots)))
    name = f"plan, ≤ {CHAIN} affected of {count:,}"
    return Figure(name, Unit.MILLISECONDS, plans, budgets.PLAN_OF_A_PART, size=count, series="plan, ≤ 100 affected")


def _everything(session: Session, source: str, count: int) -> Figure:
    plans = repeated(_WHOLE_PLANS, lambda: session.client.executions.plan(source, from_=SOURCE))
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
