"""The plot, as SVG: how far each figure is from its budget, and cost against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from tests.benchmarks.figures import Axis, Figure, Unit
from tests.benchmarks.report import sized

_KINDS = (
    ("milliseconds", (Unit.MILLISECONDS,)),
    ("seconds", (Unit.SECONDS,)),
    ("a second", (Unit.PER_SECOND,)),
    ("MB", (Unit.MEGABYTES,)),
)
_WIDTH, _ROW, _MARGIN, _PANEL = 13.0, 0.22, 0.9, 3.4
"""In inches."""
_COLUMNS = 2
_WIDE = 50
"""Costs that differ by more than so many times are drawn by tens."""
_MOST_TIMES = 3.0
"""Bars that are longer are cut; the number in them tells."""
_WITHIN, _OVER = "tab:green", "tab:red"


def drawing(figures: Sequence[Figure]) -> Drawing:
    """Returns the drawing: a bar for each figure with a budget, and a panel for each kind of cost and size."""
    budgeted = [figure for figure in figures if figure.ratio is not None]
    panels = [
        (f"{kind}, over {axis.value}", axis, curves)
        for axis in Axis
        for kind, units in _KINDS
        if (curves := sized(figures, axis, units))
    ]
    rows = -(-len(panels) // _COLUMNS)
    heights = [_MARGIN + _ROW * len(budgeted), _PANEL * max(rows, 1)]
    drawn = Drawing(figsize=(_WIDTH, sum(heights)), layout="constrained")
    [[upper], [lower]] = drawn.subfigures(2, 1, squeeze=False, height_ratios=heights)
    _draw_bars(upper.subplots(), budgeted)
    for place, (title, axis, curves) in enumerate(panels, start=1):
        _draw_curves(lower.add_subplot(rows, _COLUMNS, place), title, axis, curves)
    return drawn


def plot(figures: Sequence[Figure], path: Path) -> None:
    """Draws the figures to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        drawing(figures).savefig(path)


def _draw_bars(place: Axes, figures: Sequence[Figure]) -> None:
    ratios = [figure.ratio or 0.0 for figure in figures]
    bars = place.barh(
        range(len(figures)),
        [min(ratio, _MOST_TIMES) for ratio in ratios],
        color=[_WITHIN if ratio <= 1 else _OVER for ratio in ratios],
        tick_label=[figure.name for figure in figures],
    )
    place.bar_label(bars, [f"{ratio:.2f}×" for ratio in ratios], padding=3)
    place.axvline(1, color="black")
    place.set_xlim(0, _MOST_TIMES * 1.1)
    place.margins(y=0.01)
    place.invert_yaxis()
    place.set_title("times the budget; up to 1 is within it")


def _draw_curves(place: Axes, title: str, axis: Axis, curves: Mapping[str, Sequence[Figure]]) -> None:
    for series, points in curves.items():
        place.plot([point.size or 0 for point in points], [point.samples.p50 for point in points], "o-", label=series)
    costs = [point.samples.p50 for points in curves.values() for point in points]
    if max(costs) > _WIDE * min(costs):
        place.set_yscale("log")
    else:
        place.set_ylim(0, 1.1 * max(costs))
    if axis is Axis.INVOCATIONS:
        place.set_xscale("log")
    else:
        place.set_xticks(sorted({point.size or 0 for points in curves.values() for point in points}))
    place.xaxis.set_major_formatter("{x:,.0f}")
    place.yaxis.set_major_formatter("{x:,g}")
    place.grid(visible=True, alpha=0.4)
    place.set_title(title)
    place.legend(fontsize="small")
