"""Repeated measurements and what is said of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Samples:
    """Measurements of one thing, at least one, in the unit of the figure that they become."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Samples:
        """Takes the measurements in the order in which they were made.

        Raises:
            ValueError: There are none.
        """
        samples = cls(tuple(values))
        if not samples.values:
            raise ValueError("no measurement was made; expected at least one")
        return samples

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def p50(self) -> float:
        """The median."""
        return self.percentile(0.50)

    @property
    def p95(self) -> float:
        """What 95 % stay below."""
        return self.percentile(0.95)

    def percentile(self, share: float) -> float:
        """Returns a percentile, interpolated linearly between the two nearest measurements.

        Args:
            share: From 0, the least, to 1, the greatest.
        """
        ordered = sorted(self.values)
        place = share * (len(ordered) - 1)
        below, above = math.floor(place), math.ceil(place)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

    def scaled(self, factor: float) -> Samples:
        """Returns the same measurements in another unit."""
        return Samples(tuple(value * factor for value in self.values))


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Does something and returns how many seconds it took, with its result."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def repeated(times: int, work: Callable[[], object]) -> Samples:
    """Does something several times and returns how many milliseconds it took each time."""
    return Samples.of(timed(work)[0] * 1e3 for _ in range(times))
