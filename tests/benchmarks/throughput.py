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
from tests.benchmarks.samples import Samples, timed
from tests.benchmarks.session import WAIT_S, Session
from tests.benchmarks.wire import started_independent

_SECONDS = 5.0
_RUNS = 3
_PROCESSES = 4
_BULK = 100_000
_LIVE_STEPS = 10
_LIVE_ROUNDS = 6
_LIVE_RUNS = 8
_SETTLING_RUNS = 3


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
    """A short flow on an idle system, and while 100,000 steps of another execution, or as many as fit, are queued.

    One and the other in turn: the machine is not the same from minute to minute.
    """
    queued = min(_BULK, session.largest)
    steps = started_independent(queued)
    idle: list[float] = []
    beside: list[float] = []
    with session.worker(Isolation.THREADS):
        for number in range(_LIVE_ROUNDS):
            idle += _latencies(_LIVE_RUNS)
            session.say(f"  starting {queued:,} steps, round {number + 1} of {_LIVE_ROUNDS}")
            bulk = session.wire.start(steps)
            beside += _latencies_while_open(session, bulk)
            session.wire.cancel(bulk)
            _settle()
    name = f"flow of {_LIVE_STEPS} steps, {queued:,} steps queued"
    alone, accompanied = Samples.of(idle), Samples.of(beside)
    yield Figure(f"flow of {_LIVE_STEPS} steps, idle system", Unit.MILLISECONDS, alone)
    yield Figure(name, Unit.MILLISECONDS, accompanied)
    ratio = Samples.of([accompanied.p50 / alone.p50])
    yield Figure(f"{name}, against idle", Unit.RATIO, ratio, budgets.LIVE_BESIDE_BULK)


def _latencies(runs: int) -> Iterator[float]:
    """Runs a short flow so many times, and yields how many milliseconds each took."""
    for _ in range(runs):
        yield timed(lambda: chain_flow.run(_LIVE_STEPS).wait(timeout=WAIT_S))[0] * 1e3


def _latencies_while_open(session: Session, bulk: str) -> Iterator[float]:
    for latency in _latencies(_LIVE_RUNS):
        if not session.wire.is_open(bulk):
            return
        yield latency


def _settle() -> None:
    """Lets what has been cancelled come to its end."""
    list(_latencies(_SETTLING_RUNS))
