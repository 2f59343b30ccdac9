"""How many tasks a runner is given in advance, decided by how fast its tasks end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from statistics import median_low

LONGEST_PREFETCHED = 0.05
"""Seconds. Tasks that take longer are not fetched in advance: another executor may be free for them."""
WORK_AHEAD = 0.05
"""Seconds of work that are kept at hand."""
LARGEST_WINDOW = 1024
"""Twice what one commit claims, so that an executor has work while the planner claims more of it."""
_MOST_WINDOWS = 4
"""More windows full than this, and what waits goes to others: it would wait for some 0.2 seconds."""
_REMEMBERED = 64
_NEWEST = 5


class Pace:
    """The prefetch window of one runner.

    It starts closed, opens when tasks prove to be short, and closes when they prove to be long.

    Attributes:
        window: How many tasks are fetched beyond those that can run at once.
    """

    __slots__ = ("_seconds", "window")

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self.window = 0

    def too_many(self, waiting: int) -> bool:
        """Whether so many tasks would wait for long, as far as is known what they take."""
        return bool(self._seconds) and waiting > _MOST_WINDOWS * self.window

    def observe(self, seconds: Iterable[float]) -> None:
        """Take note of how long tasks took, the newest last."""
        self._seconds.extend(seconds)
        expected = self._expected()
        self.window = 0 if expected > LONGEST_PREFETCHED else min(LARGEST_WINDOW, int(WORK_AHEAD / expected))

    def stuck(self) -> None:
        """Take note that a task keeps those that were fetched in advance waiting, and fetch none until tasks end."""
        self.window = 0

    def _expected(self) -> float:
        """What a task takes: the mean, or what those take that have ended last, where they have become longer.

        The longest does not count: one that loaded a module, or that the machine kept waiting, says nothing of others.
        """
        known = self._seconds
        others = (sum(known) - max(known)) / (len(known) - 1) if len(known) > 1 else known[0]
        return max(others, median_low(islice(reversed(known), _NEWEST)), 1e-6)
