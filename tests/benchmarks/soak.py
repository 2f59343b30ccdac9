"""Whether a step costs more after very many of them: time, processor time, and what the tables have become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from dalsegno import Client
from tests.benchmarks import budgets
from tests.benchmarks.database import hot_tables
from tests.benchmarks.engine import PROJECT
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.fleet import Fleet, running_fleet
from tests.benchmarks.flows import chain_flow
from tests.benchmarks.samples import Samples, repeated
from tests.benchmarks.session import WAIT_S, Session

_BATCH = 2_000
_FEW = 10_000
"""After how many steps it is measured first."""
_MEASURED = 5
_CHAIN = 50
_CHAINS = 10
_EXECUTORS = 1


@dataclass(frozen=True, slots=True)
class _Look:
    """What a step costs at one time.

    Attributes:
        step_ms: Of steps that wait for nothing, from claim to commit.
        cpu_ms: Processor time of the planner and of Postgres for one of these.
        link_ms: Of steps of a chain in a flow.
    """

    step_ms: Samples
    cpu_ms: Samples
    link_ms: Samples


def soak(session: Session) -> Iterator[Figure]:
    """Steps one batch after the other, looked at after 10,000 (a tenth, where there are fewer) and at the end."""
    few = min(_FEW, session.largest // 10)
    with running_fleet(session.engine, planners=1, executors=_EXECUTORS) as fleet:
        _run(session, fleet, 0, few)
        early = _look(session, fleet)
        _run(session, fleet, few, session.largest)
        late = _look(session, fleet)
    when = (f"after {few:,} steps", f"after {session.largest:,}")
    for name, pair in {
        "no-op step": (early.step_ms, late.step_ms),
        "processor time of planner and Postgres, no-op step": (early.cpu_ms, late.cpu_ms),
        "flow chain, per step": (early.link_ms, late.link_ms),
    }.items():
        for at, samples in zip(when, pair, strict=True):
            yield Figure(f"{name}, {at}", Unit.MILLISECONDS, samples)
        ratio = Samples.of([pair[1].p50 / pair[0].p50])
        yield Figure(f"{name}, {when[1]} against it", Unit.RATIO, ratio, budgets.AFTER_VERY_MANY_STEPS)
    yield from _tables(session)


def _run(session: Session, fleet: Fleet, done: int, until: int) -> None:
    said = done
    while done < until:
        fleet.run_independent(_BATCH)
        done += _BATCH
        if done - said >= max(_FEW, until // 20):
            said = done
            session.say(f"  {done:,} of {session.largest:,} steps")


def _look(session: Session, fleet: Fleet) -> _Look:
    step_ms, cpu_ms = [], []
    for _ in range(_MEASURED):
        before = _cpu_ms(session, fleet)
        execution = fleet.run_independent(_BATCH)
        cpu_ms.append((_cpu_ms(session, fleet) - before) / _BATCH)
        step_ms.append(fleet.wire.running_seconds(execution) * 1e3 / _BATCH)
    with Client(fleet.planners[0].address, PROJECT) as client:
        chains = repeated(
            _CHAINS, lambda: client.executions.wait(client.executions.start(chain_flow, _CHAIN), timeout=WAIT_S)
        )
    return _Look(Samples.of(step_ms), Samples.of(cpu_ms), chains.scaled(1 / _CHAIN))


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
