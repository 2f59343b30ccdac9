"""The report: figures and failures, as a table, as JSON and as a plot."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Axis, Figure, Unit
from tests.benchmarks.raw import RawLimits

HEADINGS = ("figure", "p50", "p95", "n", "budget", "÷ budget", "beside raw")
_NUMERIC_FROM = 1


@dataclass(slots=True)
class Report:
    """What one run has found so far.

    Attributes:
        facts: Of the machine and the server.
        raw: The server's limits, before, between and after the benchmarks.
        figures: In the order in which they were measured.
        failures: What was not measured, and why, by the benchmark's name.
    """

    facts: Mapping[str, str]
    raw: list[RawLimits] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Returns it for JSON."""
        return {
            "facts": dict(self.facts),
            "raw": [
                {
                    "commit_ms_p50": limits.commit_ms.p50,
                    "commit_ms_p95": limits.commit_ms.p95,
                    "commits_per_second": 1e3 / limits.commit_ms.p50,
                    "batched_updates_per_second": limits.updates_per_second.p50,
                }
                for limits in self.raw
            ],
            "figures": [figure.document() for figure in self.figures],
            "failures": dict(self.failures),
        }

    def write(self, paths: Sequence[Path]) -> None:
        """Writes the JSON, to each of these."""
        text = json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n"
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the table's rows, one for each figure."""
        return [row(figure) for figure in self.figures]

    def show(self, line: Callable[[str], object]) -> None:
        """Shows facts, raw limits, the table and what failed."""
        line("  ".join(f"{name}: {value}" for name, value in self.facts.items()))
        for number, limits in enumerate(self.raw):
            line(raw_line(number, limits))
        if importlib.util.find_spec("rich") is None:
            line(plain_table(HEADINGS, self.rows()))
        else:
            _show_rich(self.rows())
        for name, why in self.failures.items():
            line(f"NOT MEASURED: {name}: {why}")


def row(figure: Figure) -> tuple[str, ...]:
    """Returns one figure as the texts of a row."""
    many = figure.samples.count > 1
    return (
        figure.name,
        f"{number(figure.samples.p50)} {figure.unit}",
        number(figure.tail) if many else "",
        str(figure.samples.count),
        "" if figure.budget is None else str(figure.budget),
        verdict(figure),
        beside_raw(figure),
    )


def beside_raw(figure: Figure) -> str:
    """Returns a time in raw commits, and a rate in raw updates; nothing for anything else."""
    if figure.commits is not None:
        return f"{number(figure.commits)} commits"
    return "" if figure.share_of_updates is None else f"{figure.share_of_updates:.1%} of updates"


def line_of(figure: Figure) -> str:
    """Returns one figure as a line, to be shown as soon as it is there."""
    budget = "" if figure.budget is None else f" (budget {figure.budget}: {verdict(figure)})"
    return f"  {figure.name}: {number(figure.samples.p50)} {figure.unit}{budget}"


def verdict(figure: Figure) -> str:
    """Returns how far a figure is from each limit of its budget, and whether that is too far."""
    ratios = [ratio for ratio in (figure.ratio, figure.commit_ratio) if ratio is not None]
    text = ", ".join(f"{ratio:.2f}×" for ratio in ratios)
    return f"{text} over" if any(ratio > 1 for ratio in ratios) else text


def number(value: float) -> str:
    """Returns a number with about three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def raw_line(number_of_look: int, limits: RawLimits) -> str:
    """Returns one look at the server's limits as a line."""
    commit = limits.commit_ms
    return (
        f"raw Postgres, look {number_of_look + 1}: {commit.p50:.3f} ms a durable commit (p95 {commit.p95:.3f}), "
        f"{1e3 / commit.p50:,.0f} commits/s on one connection, "
        f"{limits.updates_per_second.p50:,.0f} batched updates/s"
    )


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as text, the first column to the left and the others to the right."""
    widths = [max(len(line[column]) for line in (headings, *rows)) for column in range(len(headings))]

    def text(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if column < _NUMERIC_FROM else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([text(headings), "  ".join("-" * width for width in widths), *map(text, rows)])


def _show_rich(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if column < _NUMERIC_FROM else "right", no_wrap=column > 0)
    for cells in rows:
        over = cells[HEADINGS.index("÷ budget")].endswith("over")
        table.add_row(*cells, style="bold" if over else None)
    console = Console()
    # A file or a pipe has no width; cut lines would lose the numbers.
    (console if console.is_terminal else Console(width=150)).print(table)


def sized(figures: Sequence[Figure], axis: Axis, units: Sequence[Unit]) -> dict[str, list[Figure]]:
    """Returns the figures that have a size of a kind, by the curve that they belong to, in order of size."""
    curves: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.size is not None and figure.axis is axis and figure.unit in units:
            curves.setdefault(figure.series, []).append(figure)
    return {series: sorted(points, key=lambda point: point.size or 0) for series, points in curves.items()}
