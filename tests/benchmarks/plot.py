"""The plot, as SVG: how far each figure is from its budget, and cost against size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tests.benchmarks.figures import Axis, Figure, Unit
from tests.benchmarks.report import number, sized

_KINDS = (
    ("milliseconds", (Unit.MILLISECONDS,)),
    ("seconds", (Unit.SECONDS,)),
    ("a second", (Unit.PER_SECOND,)),
    ("MB", (Unit.MEGABYTES,)),
)
_WIDTH, _LEFT, _RIGHT = 1100, 470, 1060
_ROW, _TOP = 18, 40
_PANEL_LEFT, _PANEL_RIGHT, _PANEL_HEIGHT, _PANEL_GAP = 90, 700, 240, 60
_MOST_TIMES = 3.0
"""Bars that are longer are cut; the number beside them tells."""
_WITHIN, _OVER = "#2e7d32", "#c62828"
_COLOURS = ("#1565c0", "#ef6c00", "#2e7d32", "#6a1b9a", "#c62828", "#00838f")


def plot(figures: Sequence[Figure], path: Path) -> None:
    """Draws the figures to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawing(figures), encoding="utf-8")


def drawing(figures: Sequence[Figure]) -> str:
    """Returns the drawing."""
    budgeted = [figure for figure in figures if figure.ratio is not None]
    parts = list(_bars(budgeted))
    top = _TOP + _ROW * (len(budgeted) + 2)
    for axis in Axis:
        for name, units in _KINDS:
            curves = sized(figures, axis, units)
            if curves:
                parts += _panel(axis, name, curves, top + _PANEL_GAP // 2)
                top += _PANEL_HEIGHT + _PANEL_GAP
    size = f'width="{_WIDTH}" height="{top}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([opening, f'<rect {size} fill="white"/>', *parts, "</svg>\n"])


def _bars(figures: Sequence[Figure]) -> Iterator[str]:
    yield _text(_LEFT, _TOP - 20, "times the budget; up to 1 is within it", bold=True)
    one = _LEFT + (_RIGHT - _LEFT) / _MOST_TIMES
    for place, figure in enumerate(figures):
        ratio, y = figure.ratio or 0.0, _TOP + _ROW * place
        length = min(ratio, _MOST_TIMES) / _MOST_TIMES * (_RIGHT - _LEFT)
        colour = _WITHIN if ratio <= 1 else _OVER
        yield _text(_LEFT - 8, y + 12, figure.name, anchor="end")
        yield f'<rect x="{_LEFT}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 4}" fill="{colour}"/>'
        yield _text(_LEFT + 6, y + 12, f"{ratio:.2f}×", colour="white" if length > 50 else "black")
    yield _line((one, _TOP), (one, _TOP + _ROW * len(figures)), "black")


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where values are on an axis of the drawing, by tens or by their size."""

    low: float
    high: float
    start: float
    end: float
    by_tens: bool

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float, *, by_tens: bool) -> _Scale:
        known = list(values)
        if by_tens:
            known = [value for value in known if value > 0] or [1.0]
            low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
            return cls(low, max(high, low + 1), start, end, by_tens)
        return cls(0.0, max(known) or 1.0, start, end, by_tens)

    def at(self, value: float) -> float:
        placed = math.log10(value) if self.by_tens and value > 0 else self.low if self.by_tens else value
        return self.start + (placed - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def marks(self) -> list[float]:
        """Values to be written at the axis."""
        if self.by_tens:
            return [10.0**power for power in range(int(self.low), int(self.high) + 1)]
        return [self.high * quarter / 4 for quarter in range(5)]


def _panel(axis: Axis, name: str, curves: Mapping[str, Sequence[Figure]], top: float) -> Iterator[str]:
    bottom, by_tens = top + _PANEL_HEIGHT - 30, axis is Axis.INVOCATIONS
    points = [point for curve in curves.values() for point in curve]
    sizes = sorted({point.size or 0 for point in points})
    x = _Scale.of(sizes, _PANEL_LEFT, _PANEL_RIGHT, by_tens=by_tens)
    y = _Scale.of([point.samples.p50 for point in points], bottom, top, by_tens=by_tens)
    yield _text(_PANEL_LEFT, top - 8, f"{name}, over {axis.value}", bold=True)
    for mark in x.marks if by_tens else sizes:
        yield _line((x.at(mark), top), (x.at(mark), bottom), "#dddddd")
        yield _text(x.at(mark), bottom + 16, f"{mark:,.0f}", anchor="middle")
    for mark in y.marks:
        yield _line((_PANEL_LEFT, y.at(mark)), (_PANEL_RIGHT, y.at(mark)), "#dddddd")
        yield _text(_PANEL_LEFT - 8, y.at(mark) + 4, number(mark), anchor="end")
    for place, (series, curve) in enumerate(curves.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        yield from _curve(curve, lambda point: (x.at(point.size or 0), y.at(point.samples.p50)), colour)
        yield f'<rect x="{_PANEL_RIGHT + 20}" y="{top + 18 * place}" width="12" height="12" fill="{colour}"/>'
        yield _text(_PANEL_RIGHT + 38, top + 18 * place + 10, series)


def _curve(points: Sequence[Figure], place: Callable[[Figure], tuple[float, float]], colour: str) -> Iterator[str]:
    placed = [place(point) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for point, (x, y) in zip(points, placed, strict=True):
        told = escape(f"{point.name}: {number(point.samples.p50)} {point.unit}")
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{told}</title></circle>'


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    return f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "black", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'
