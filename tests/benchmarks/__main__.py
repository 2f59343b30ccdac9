"""``python -m tests.benchmarks``: measures, shows a table, and writes a JSON file and a plot to build/benchmarks."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import grpc

from dalsegno import Client, DalsegnoError
from tests.benchmarks.bare_step import bare_step
from tests.benchmarks.chains import chains, replays
from tests.benchmarks.engine import keep_logs, running_engine
from tests.benchmarks.executor_alone import executor_alone
from tests.benchmarks.figures import Figure
from tests.benchmarks.footprint import footprint
from tests.benchmarks.independent import twenty_thousand, two_thousand
from tests.benchmarks.machine import machine_facts
from tests.benchmarks.plans import plans_by_size
from tests.benchmarks.plot import plot
from tests.benchmarks.processes import ROOT
from tests.benchmarks.raw import RawPostgres
from tests.benchmarks.report import Report, line_of
from tests.benchmarks.rolling import rolling_restart
from tests.benchmarks.scaling import by_executors, by_planners, in_flight_by_size
from tests.benchmarks.session import Benchmark, Session, deadline, time_limit
from tests.benchmarks.soak import soak
from tests.benchmarks.throughput import live_beside_bulk, replays_a_second
from tests.benchmarks.wire import Wire

_RESULTS = ROOT / "build" / "benchmarks"
_FAILURES = (DalsegnoError, grpc.RpcError, asyncpg.PostgresError, TimeoutError, OSError, ValueError, RuntimeError)

EVERYDAY, AT_SCALE = 100_000, 1_000_000
"""How large the largest is."""
LEAST = 1_000

BENCHMARKS = (
    Benchmark("footprint", footprint),
    Benchmark("bare-step", bare_step),
    Benchmark("chains", chains),
    Benchmark("replays", replays),
    Benchmark("replays-a-second", replays_a_second),
    Benchmark("executor-alone", executor_alone),
    Benchmark("independent", two_thousand),
    Benchmark("independent-20k", twenty_thousand, is_long=True),
    Benchmark("live-beside-bulk", live_beside_bulk, is_long=True),
    Benchmark("executors", by_executors, is_long=True),
    Benchmark("planners", by_planners, is_long=True),
    Benchmark("rolling-restart", rolling_restart, is_long=True),
    Benchmark("plans", plans_by_size),
    Benchmark("soak", soak, is_long=True),
    Benchmark("in-flight", in_flight_by_size),
)
"""What leaves much to be vacuumed comes last: the largest execution is one of a million steps."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; returns 1 where something could not be measured. Budgets decide nothing."""
    options = _parser().parse_args(arguments)
    chosen = [
        benchmark
        for benchmark in BENCHMARKS
        if (benchmark.name in options.only if options.only else options.scale or not benchmark.is_long)
    ]
    stem = "scale" if options.scale else "bench"
    written = [_RESULTS / f"{stem}.json", *([options.json] if options.json is not None else [])]
    report = _measure(chosen, options.size or (AT_SCALE if options.scale else EVERYDAY), written)
    report.show(_say)
    picture = _RESULTS / f"{stem}.svg"
    plot(report.figures, picture)
    _say("  ".join(map(str, [*written, picture])))
    return 1 if report.failures else 0


def _measure(benchmarks: Sequence[Benchmark], largest: int, written: Sequence[Path]) -> Report:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end, it keeps what it has as well
    with running_engine() as engine, RawPostgres(engine.database_url) as raw:
        _log(f"engine {engine.home.root}, planner {engine.planner.pid}")
        report = Report({**machine_facts(), **{f"postgres {name}": value for name, value in raw.facts().items()}})
        session = Session(engine, Client(), Wire(engine.address), largest, _log)
        report.raw.append(raw.limits())
        left = [benchmark.name for benchmark in benchmarks]
        try:
            for benchmark in benchmarks:
                _one(benchmark, session, raw, report)
                report.write(written)
                left.pop(0)
        except KeyboardInterrupt:
            report.failures.update(dict.fromkeys(left, "interrupted"))
            report.write(written)
        session.wire.close()
        if report.failures:
            keep_logs(engine, _RESULTS / "logs")
            _log(f"logs: {_RESULTS / 'logs'}")
    return report


def _one(benchmark: Benchmark, session: Session, raw: RawPostgres, report: Report) -> None:
    """Runs one benchmark, and takes the figures that it had where it is broken off."""
    _log(f"{benchmark.name} …")
    begin = time.monotonic()
    figures: list[Figure] = []
    try:
        with deadline(time_limit(session.largest)):
            for figure in benchmark.run(session):
                _log(line_of(figure))
                figures.append(figure)
    except _FAILURES as error:
        report.failures[benchmark.name] = f"{type(error).__name__}: {error}"
    finally:
        report.raw.append(raw.limits())
        # The machine is not the same from minute to minute: each figure goes with the looks around it.
        around = report.raw[-2:]
        commit_ms = sum(limits.commit_ms.p50 for limits in around) / len(around)
        updates = sum(limits.updates_per_second.p50 for limits in around) / len(around)
        report.figures.extend(figure.beside(commit_ms, updates) for figure in figures)
    _log(f"{benchmark.name}: {time.monotonic() - begin:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--scale", action="store_true", help="also the long ones: minutes, and gigabytes of disk")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=[benchmark.name for benchmark in BENCHMARKS],
        help="only this one, whether long or not; may be repeated: " + " ".join(one.name for one in BENCHMARKS),
    )
    parser.add_argument(
        "--size",
        type=_invocations,
        metavar="N",
        help=f"invocations of the largest graphs, and steps of the soak ({EVERYDAY:,}; with --scale {AT_SCALE:,})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there too")
    return parser


def _invocations(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < LEAST:
        raise argparse.ArgumentTypeError(f"{text} is less than {LEAST:,}")
    return number


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
