"""``python -m tests.benchmarks``: measures, shows a table, and writes a JSON file and a plot to build/benchmarks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import grpc

from dalsegno import Client, DalsegnoError
from tests.benchmarks.chains import chains, replays
from tests.benchmarks.engine import ROOT, keep_logs, running_engine
from tests.benchmarks.figures import Figure
from tests.benchmarks.footprint import footprint
from tests.benchmarks.independent import twenty_thousand, two_thousand
from tests.benchmarks.machine import machine_facts
from tests.benchmarks.plans import hundred_thousand, side_by_side
from tests.benchmarks.plot import plot
from tests.benchmarks.raw import RawPostgres
from tests.benchmarks.report import Report
from tests.benchmarks.session import Benchmark, Session, deadline
from tests.benchmarks.throughput import live_beside_bulk, million, replays_a_second
from tests.benchmarks.wire import Wire

_RESULTS = ROOT / "build" / "benchmarks"
_FAILURES = (DalsegnoError, grpc.RpcError, asyncpg.PostgresError, TimeoutError, OSError, ValueError, RuntimeError)

BENCHMARKS = (
    Benchmark("footprint", footprint),
    Benchmark("chains", chains),
    Benchmark("replays", replays),
    Benchmark("independent", two_thousand),
    Benchmark("plans", hundred_thousand),
    Benchmark("independent-20k", twenty_thousand, is_long=True),
    Benchmark("replays-a-second", replays_a_second, is_long=True),
    Benchmark("plans-by-size", side_by_side, is_long=True, limit_s=600),
    Benchmark("live-beside-bulk", live_beside_bulk, is_long=True, limit_s=300),
    Benchmark("million", million, is_long=True, limit_s=900),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; returns 1 where something could not be measured. Budgets decide nothing."""
    options = _parser().parse_args(arguments)
    chosen = [
        benchmark
        for benchmark in BENCHMARKS
        if (benchmark.name in options.only if options.only else options.scale or not benchmark.is_long)
    ]
    report = _measure(chosen)
    report.show(_say)
    stem = "scale" if options.scale else "bench"
    written = [options.json] if options.json is not None else []
    written.append(_RESULTS / f"{stem}.json")
    for path in written:
        report.write(path)
    picture = _RESULTS / f"{stem}.png"
    drawn = str(picture) if plot(report.figures, picture) else "no plot: matplotlib is not installed"
    _say("  ".join([*map(str, written), drawn]))
    return 1 if report.failures else 0


def _measure(benchmarks: Sequence[Benchmark]) -> Report:
    with running_engine() as engine, RawPostgres(engine.database_url) as raw:
        _log(f"engine {engine.home.root}, planner {engine.planner.pid}")
        report = Report({**machine_facts(), **{f"postgres {name}": value for name, value in raw.facts().items()}})
        session = Session(engine, Client(), Wire(engine.address))
        report.raw.append(raw.limits())
        for benchmark in benchmarks:
            begin = time.monotonic()
            figures: list[Figure] = []
            try:
                with deadline(benchmark.limit_s):
                    figures.extend(benchmark.run(session))
            except _FAILURES as error:
                report.failures[benchmark.name] = f"{type(error).__name__}: {error}"
            report.raw.append(raw.limits())
            # The machine is not the same from minute to minute: each figure goes with the looks around it.
            commit_ms = sum(limits.commit_ms.p50 for limits in report.raw[-2:]) / 2
            report.figures.extend(figure.beside(commit_ms) for figure in figures)
            _log(f"{benchmark.name}: {time.monotonic() - begin:.0f} s")
        session.wire.close()
        if report.failures:
            keep_logs(engine, _RESULTS / "logs")
            _log(f"logs: {_RESULTS / 'logs'}")
    return report


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there too")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
