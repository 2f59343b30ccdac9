"""What a benchmark finds: a figure, beside its budget and beside what a raw commit costs in the same run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tests.benchmarks.samples import Samples


class Unit(StrEnum):
    """What the numbers of a figure count."""

    MILLISECONDS = "ms"
    SECONDS = "s"
    PER_SECOND = "/s"
    MEGABYTES = "MB"
    RATIO = "×"
    PERCENT = "%"


class Axis(StrEnum):
    """What sizes count."""

    INVOCATIONS = "invocations"
    EXECUTORS = "executors"
    PLANNERS = "planners"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a figure must reach.

    Attributes:
        limit: In the figure's unit.
        at_least: Whether more is better; otherwise less is.
        commits: Where it is also limited by the cost of a durable commit: how many of them it may cost.
    """

    limit: float
    at_least: bool = False
    commits: float | None = None

    def ratio(self, value: float) -> float:
        """Returns how far a value is from the limit: up to 1 is within it, 2 is twice too slow or too big."""
        return self.limit / value if self.at_least else value / self.limit

    def commit_ratio(self, value: float, commit_ms: float | None) -> float | None:
        """Returns the same for the limit in commits; None where there is none, or no commit was measured."""
        return None if self.commits is None or not commit_ms else value / (self.commits * commit_ms)

    def __str__(self) -> str:
        text = f"{'≥' if self.at_least else '≤'} {self.limit:,g}"
        return text if self.commits is None else f"{text}, ≤ {self.commits:g} commits"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Attributes:
        name: What was measured.
        unit: Of the samples.
        samples: The measurements.
        budget: What it must reach; None for a figure that explains others.
        size: How large the thing measured was, where sizes are compared.
        series: The curve that a figure with a size belongs to.
        axis: What the size counts.
        commit_ms: What a raw durable commit cost just before and after.
        updates_per_second: How many rows the same Postgres updated a second in batches, just before and after.
    """

    name: str
    unit: Unit
    samples: Samples
    budget: Budget | None = None
    size: int | None = None
    series: str = ""
    axis: Axis = Axis.INVOCATIONS
    commit_ms: float | None = None
    updates_per_second: float | None = None

    @property
    def ratio(self) -> float | None:
        """How far the median is from the budget; None without one."""
        return None if self.budget is None else self.budget.ratio(self.samples.p50)

    @property
    def commit_ratio(self) -> float | None:
        """How far the median is from the budget in commits; None without one."""
        return None if self.budget is None else self.budget.commit_ratio(self.samples.p50, self.commit_ms)

    @property
    def tail(self) -> float:
        """What 95 % of the measurements are at least as good as."""
        return self.samples.percentile(0.05) if self.unit is Unit.PER_SECOND else self.samples.p95

    @property
    def commits(self) -> float | None:
        """How many raw commits the median is worth; None where it is no time."""
        if self.unit is not Unit.MILLISECONDS or not self.commit_ms:
            return None
        return self.samples.p50 / self.commit_ms

    @property
    def share_of_updates(self) -> float | None:
        """The median as a share of the raw updates a second; None where it is no rate."""
        if self.unit is not Unit.PER_SECOND or not self.updates_per_second:
            return None
        return self.samples.p50 / self.updates_per_second

    def beside(self, commit_ms: float, updates_per_second: float) -> Figure:
        """Returns the figure with the raw limits of the server noted."""
        return replace(self, commit_ms=commit_ms, updates_per_second=updates_per_second)

    def document(self) -> dict[str, Any]:
        """Returns it for the JSON report."""
        budget = self.budget
        return {
            "name": self.name,
            "unit": self.unit.value,
            "p50": self.samples.p50,
            "p95": self.tail,
            "count": self.samples.count,
            "samples": list(self.samples.values),
            "budget": None if budget is None else budget.limit,
            "budget_is": None if budget is None else "at least" if budget.at_least else "at most",
            "budget_commits": None if budget is None else budget.commits,
            "ratio_to_budget": self.ratio,
            "ratio_to_budget_in_commits": self.commit_ratio,
            "raw_commit_ms": self.commit_ms,
            "in_raw_commits": self.commits,
            "raw_updates_per_second": self.updates_per_second,
            "share_of_raw_updates": self.share_of_updates,
            "size": self.size,
            "series": self.series,
            "axis": self.axis.value,
        }
