"""Whether a step costs more after very many of them: time, processor time, and what the tables have become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import psutil

from tests.benchmarks import budgets
from tests.benchmarks.database import hot_tables, new_database
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.fleet import Fleet, running_fleet
from tests.benchmarks.flows import chain_flow
from tests.benchmarks.samples import Samples, timed
from tests.benchmarks.session import WAIT_S, Session

_BATCH = 2_000
_FEW = 10_000
"""After how many steps a database is young."""
_ROUNDS = 9
_CHAIN = 50
_EXECUTORS = 1


@dataclass(frozen=True, slots=True)
class _Look:
    """What a step costs, in one database.

    Attributes:
        step_ms: Of steps that wait for nothing, from claim to commit.
        cpu_ms: Processor time of the planner and of Postgres for one of these.
        link_ms: Of steps of a chain in a flow.
    """

    step_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    link_ms: list[float] = field(default_factory=list)


def soak(session: Session) -> Iterator[Figure]:
    """Steps one batch after the other, then in turn with another database, which has had 10,000 (a tenth, if fewer)."""
    few = min(_FEW, session.largest // 10)
    with running_fleet(session.engine, planners=1, executors=_EXECUTORS) as old:
        _run(session, old, session.largest)
        beside = replace(session.engine, database_url=new_database(session.engine.database_url))
        with running_fleet(beside, planners=1, executors=_EXECUTORS) as young:
            _run(session, young, few)
            early, late = _in_turn(session, young, old)
    when = (f"after {few:,} steps", f"after {session.largest:,}")
    for name, pair in {
        "no-op step": (early.step_ms, late.step_ms),
        "processor time of planner and Postgres, no-op step": (early.cpu_ms, late.cpu_ms),
        "flow chain, per step": (early.link_ms, late.link_ms),
    }.items():
        of_few, of_many = map(Samples.of, pair)
        for at, samples in zip(when, (of_few, of_many), strict=True):
            yield Figure(f"{name}, {at}", Unit.MILLISECONDS, samples)
        ratio = Samples.of([of_many.p50 / of_few.p50])
        yield Figure(f"{name}, {when[1]} against it", Unit.RATIO, ratio, budgets.AFTER_VERY_MANY_STEPS)
    yield from _tables(session)


def _run(session: Session, fleet: Fleet, steps: int) -> None:
    said = 0
    for done in range(_BATCH, steps + _BATCH, _BATCH):
        fleet.run_independent(_BATCH)
        if done - said >= max(_FEW, steps // 20):
            said = done
            session.say(f"  {done:,} of {steps:,} steps")


def _in_turn(session: Session, young: Fleet, old: Fleet) -> tuple[_Look, _Look]:
    """Looks at both in turn: the machine is not the same from minute to minute."""
    early, late = _Look(), _Look()
    for number in range(_ROUNDS):
        pair = [(young, early), (old, late)]
        for fleet, look in pair if number % 2 else reversed(pair):
            _look(session, fleet, look)
    return early, late


def _look(session: Session, fleet: Fleet, look: _Look) -> None:
    before = _cpu_ms(session, fleet)
    execution = fleet.run_independent(_BATCH)
    look.cpu_ms.append((_cpu_ms(session, fleet) - before) / _BATCH)
    look.step_ms.append(fleet.wire.running_seconds(execution) * 1e3 / _BATCH)
    executions = fleet.client.executions
    seconds, _ = timed(lambda: executions.wait(executions.start(chain_flow, _CHAIN), timeout=WAIT_S))
    look.link_ms.append(seconds * 1e3 / _CHAIN)


def _cpu_ms(session: Session, fleet: Fleet) -> float:
    processes = [fleet.planners[0].process, *session.engine.postgres]
    return sum(_time_of(process) for process in processes) * 1e3


def _time_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a worker of autovacuum
        return 0.0
    return float(times.user + times.system)


def _tables(session: Session) -> Iterator[Figure]:
    for name, table in hot_tables(session.engine.database_url).items():
        if table.updates:
            hot = Samples.of([100 * table.hot / table.updates])
            yield Figure(f"{name}: updates that wrote no index", Unit.PERCENT, hot)
        dead = Samples.of([100 * table.dead / max(table.dead + table.live, 1)])
        yield Figure(f"{name}: dead rows", Unit.PERCENT, dead)
        yield Figure(f"{name}: size, {table.vacuums} autovacuums", Unit.MEGABYTES, Samples.of([table.megabytes]))
        yield Figure(f"{name}: size of its indexes", Unit.MEGABYTES, Samples.of([table.index_megabytes]))
