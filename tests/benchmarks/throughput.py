"""What the system carries for a while: replays of many clients, live work beside a bulk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks import budgets
from tests.benchmarks.chains import LAST_STEP, LENGTH
from tests.benchmarks.engine import Isolation
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.flows import chain_flow, chain_pipeline
from tests.benchmarks.processes import ROOT
from tests.benchmarks.samples import Samples, repeated, timed
from tests.benchmarks.session import WAIT_S, Session
from tests.benchmarks.wire import started_independent

_SECONDS = 5.0
_RUNS = 3
_PROCESSES = 4
_BULK = 100_000
_LIVE_STEPS = 10
_LIVE_RUNS = 15


def replays_a_second(session: Session) -> Iterator[Figure]:
    """Replays of a chain from its last step, to completion: from one client, then from 16 at once."""
    with session.worker(Isolation.PROCESSES):
        source = str(chain_pipeline(LENGTH).exec_id)
        alone = Samples.of(_replay_rate(source, [1]) for _ in range(_RUNS))
        yield Figure("replays, one client", Unit.PER_SECOND, alone, budgets.REPLAYS_ALONE)
        together = Samples.of(_replay_rate(source, [4] * _PROCESSES) for _ in range(_RUNS))
        yield Figure("replays, 16 clients", Unit.PER_SECOND, together, budgets.REPLAYS_TOGETHER)


def _replay_rate(source: str, clients: list[int]) -> float:
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.benchmarks.replay_client"),
                *(source, LAST_STEP, str(count), str(_SECONDS)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for count in clients
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(int(process.communicate()[0]) for process in started) / _SECONDS


def live_beside_bulk(session: Session) -> Iterator[Figure]:
    """A short flow on an idle system, and while 100,000 steps of another execution, or as many as fit, are queued."""
    with session.worker(Isolation.THREADS):
        idle = repeated(_LIVE_RUNS, lambda: chain_flow.run(_LIVE_STEPS).wait(timeout=WAIT_S))
        yield Figure(f"flow of {_LIVE_STEPS} steps, idle system", Unit.MILLISECONDS, idle)
        queued = min(_BULK, session.largest)
        session.say(f"  starting {queued:,} steps")
        bulk = session.wire.start(started_independent(queued))
        beside: list[float] = []
        while session.wire.is_open(bulk) and len(beside) < _LIVE_RUNS:
            beside.append(timed(lambda: chain_flow.run(_LIVE_STEPS).wait(timeout=WAIT_S))[0] * 1e3)
        session.wire.cancel(bulk)
    name = f"flow of {_LIVE_STEPS} steps, {queued:,} steps queued"
    yield Figure(name, Unit.MILLISECONDS, Samples.of(beside))
    ratio = Samples.of([Samples.of(beside).p50 / idle.p50])
    yield Figure(f"{name}, against idle", Unit.RATIO, ratio, budgets.LIVE_BESIDE_BULK)
