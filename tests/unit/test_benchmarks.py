"""The pure parts of the benchmarks: statistics, budgets, the table. Nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tests.benchmarks.figures import Axis, Budget, Figure, Unit
from tests.benchmarks.plot import drawing, plot
from tests.benchmarks.raw import RawLimits
from tests.benchmarks.report import HEADINGS, Report, beside_raw, number, plain_table, row, sized, verdict
from tests.benchmarks.samples import Samples

SVG = "{http://www.w3.org/2000/svg}"


def _figure(value: float, unit: Unit = Unit.MILLISECONDS, **more: Any) -> Figure:
    return Figure("something", unit, Samples.of([value]), **more)


def _points(line: Line2D) -> list[tuple[float, float]]:
    return [(x, y) for x, y in np.asarray(line.get_xydata())]


@pytest.mark.parametrize(
    ("values", "p50", "p95"),
    [([7], 7, 7), ([1, 3], 2, 2.9), ([3, 1, 2], 2, 2.9), (range(1, 102), 51, 96)],
)
def test_percentiles_are_interpolated(values: list[float], p50: float, p95: float) -> None:
    samples = Samples.of(values)
    assert samples.p50 == pytest.approx(p50)
    assert samples.p95 == pytest.approx(p95)


@given(st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1), st.floats(min_value=0, max_value=1))
def test_a_percentile_lies_within_the_measurements(values: list[float], share: float) -> None:
    found = Samples.of(values).percentile(share)
    assert min(values) * (1 - 1e-9) <= found <= max(values) * (1 + 1e-9)


def test_no_measurement_is_no_samples() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        Samples.of([])


@pytest.mark.parametrize(
    ("budget", "value", "ratio"),
    [
        (Budget(5), 10, 2),
        (Budget(5), 2.5, 0.5),
        (Budget(10_000, at_least=True), 2_500, 4),
        (Budget(10_000, at_least=True), 20_000, 0.5),
    ],
)
def test_a_ratio_over_one_misses_the_budget(budget: Budget, value: float, ratio: float) -> None:
    assert budget.ratio(value) == pytest.approx(ratio)


def test_a_budget_may_be_in_commits_too() -> None:
    assert Budget(1.5, commits=4).commit_ratio(1.5, 0.25) == pytest.approx(1.5)
    assert Budget(1.5, commits=4).commit_ratio(1.5, None) is None
    assert Budget(1.5).commit_ratio(1.5, 0.25) is None


def test_the_tail_is_the_worse_end() -> None:
    values = Samples.of(range(1, 102))
    assert Figure("slow", Unit.MILLISECONDS, values).tail == pytest.approx(96)
    assert Figure("rare", Unit.PER_SECOND, values).tail == pytest.approx(6)


def test_only_times_are_counted_in_commits() -> None:
    assert _figure(2).beside(0.5, 1e5).commits == pytest.approx(4)
    assert _figure(2, Unit.MEGABYTES).beside(0.5, 1e5).commits is None
    assert _figure(2).commits is None


def test_only_rates_are_shares_of_raw_updates() -> None:
    assert _figure(2_000, Unit.PER_SECOND).beside(0.5, 1e5).share_of_updates == pytest.approx(0.02)
    assert _figure(2).beside(0.5, 1e5).share_of_updates is None


def test_a_figure_stands_beside_the_raw_limit_of_its_kind() -> None:
    assert beside_raw(_figure(2).beside(0.5, 1e5)) == "4.00 commits"
    assert beside_raw(_figure(2_000, Unit.PER_SECOND).beside(0.5, 1e5)) == "2.0% of updates"
    assert beside_raw(_figure(2, Unit.MEGABYTES).beside(0.5, 1e5)) == ""


def test_a_row_has_the_figure_its_budget_and_how_far_it_is_from_it() -> None:
    figure = _figure(12, budget=Budget(5, commits=4)).beside(1.0, 1e5)
    assert row(figure) == ("something", "12.0 ms", "", "1", "≤ 5, ≤ 4 commits", "2.40×, 3.00× over", "12.0 commits")
    assert row(_figure(0.25)) == ("something", "0.25 ms", "", "1", "", "", "")


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")])
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.50×"), (1, "1.00×"), (2.5, "2.50× over")])
def test_the_verdict_says_when_it_is_over(value: float, text: str) -> None:
    assert verdict(_figure(value, budget=Budget(1))) == text
    assert verdict(_figure(value)) == ""


def test_the_plain_table_is_aligned() -> None:
    table = plain_table(("figure", "p50"), [("a", "1.00 ms"), ("longer", "12 ms")])
    assert table.splitlines() == [
        "figure      p50",
        "------  -------",
        "a       1.00 ms",
        "longer    12 ms",
    ]


def test_curves_go_by_series_and_size() -> None:
    large = _figure(3, size=1_000, series="plan")
    small = _figure(2, size=10, series="plan")
    other = _figure(1, size=3, series="plan", axis=Axis.PLANNERS)
    figures = [large, _figure(1), small, other, _figure(9, Unit.MEGABYTES, size=1)]
    curves = sized(figures, Axis.INVOCATIONS, [Unit.MILLISECONDS])
    assert curves == {"plan": [small, large]}


def test_the_plot_has_a_bar_for_each_budget_and_a_curve_for_each_series() -> None:
    figures = [
        _figure(2, budget=Budget(1)),
        *(_figure(ms, size=size, series="plan & all") for size, ms in ((1_000, 1), (100_000, 10))),
        *(_figure(rate, Unit.PER_SECOND, size=n, series="steps", axis=Axis.PLANNERS) for n, rate in ((1, 5), (3, 9))),
    ]
    bars, plans, planners = drawing(figures).axes
    assert [bar.get_width() for bar in bars.patches if isinstance(bar, Rectangle)] == [2]
    assert [_points(line) for line in plans.lines] == [[(1_000, 1), (100_000, 10)]]
    assert [_points(line) for line in planners.lines] == [[(1, 5), (3, 9)]]


def test_the_plot_is_a_picture_that_says_what_it_shows(tmp_path: Path) -> None:
    picture = tmp_path / "made" / "bench.svg"
    sizes = [_figure(size, size=size, series="plan & all") for size in (1_000, 100_000)]
    plot([_figure(2, budget=Budget(1)), *sizes], picture)
    said = [one.text for one in ET.parse(picture).iter(f"{SVG}text")]
    assert {"something", "2.00×", "plan & all", "100,000", "milliseconds, over invocations"} <= set(said)


def test_the_report_is_json_and_shows_what_was_not_measured(tmp_path: Path) -> None:
    raw = RawLimits(Samples.of([0.5]), Samples.of([1e5]))
    report = Report(
        {"cores": "2"}, [raw], [_figure(2, budget=Budget(1)).beside(0.5, 1e5)], {"plans": "TimeoutError: late"}
    )
    report.write([tmp_path / "made" / "bench.json"])
    document = json.loads((tmp_path / "made" / "bench.json").read_text())
    assert document["raw"][0]["commits_per_second"] == 2_000
    assert document["figures"][0]["ratio_to_budget"] == 2
    assert document["figures"][0]["in_raw_commits"] == 4
    shown: list[str] = []
    report.show(shown.append)
    assert any("NOT MEASURED: plans: TimeoutError: late" in line for line in shown)
    assert len(report.rows()[0]) == len(HEADINGS)
