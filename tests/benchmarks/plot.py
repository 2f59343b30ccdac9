"""The plot: how far each figure is from its budget, and cost against size. Needs matplotlib."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.report import sized

_PANELS = (
    ("milliseconds", (Unit.MILLISECONDS,)),
    ("seconds", (Unit.SECONDS,)),
    ("a second", (Unit.PER_SECOND,)),
    ("MB", (Unit.MEGABYTES,)),
)


def plot(figures: Sequence[Figure], path: Path) -> bool:
    """Draws the figures, and returns whether it could: False where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    importlib.import_module("matplotlib").use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    budgeted = [figure for figure in figures if figure.ratio is not None]
    panels = [(name, curves) for name, units in _PANELS if (curves := sized(figures, units))]
    drawing, axes = pyplot.subplots(
        1 + len(panels),
        1,
        figsize=(11, 2 + 0.3 * len(budgeted) + 3 * len(panels)),
        squeeze=False,
        height_ratios=[max(1.0, 0.1 * len(budgeted)), *[1.0] * len(panels)],
    )
    _draw_ratios(axes[0][0], budgeted)
    for axis, (name, curves) in zip(axes[1:, 0], panels, strict=True):
        _draw_curves(axis, name, curves)
    drawing.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=120)
    pyplot.close(drawing)
    return True


def _draw_ratios(axis: Any, figures: Sequence[Figure]) -> None:
    ratios = [figure.ratio or 0.0 for figure in figures]
    colours = ["tab:green" if ratio <= 1 else "tab:red" for ratio in ratios]
    axis.barh([figure.name for figure in figures], ratios, color=colours)
    axis.axvline(1, color="black", linewidth=1)
    axis.invert_yaxis()
    axis.set_xlabel("times the budget; up to 1 is within it")
    axis.tick_params(axis="y", labelsize=7)


def _draw_curves(axis: Any, name: str, curves: dict[str, list[Figure]]) -> None:
    for series, points in curves.items():
        axis.plot([point.size for point in points], [point.samples.p50 for point in points], "o-", label=series)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("invocations")
    axis.set_ylabel(name)
    axis.legend(fontsize=7)
