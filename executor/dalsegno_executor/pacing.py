"""How many tasks a runner is given in advance, decided by how fast its tasks end."""

from __future__ import annotations

from collections import deque
from statistics import median_low

LONGEST_PREFETCHED = 0.05
"""Seconds. Tasks that take longer are not fetched in advance: another executor may be free for them."""
WORK_AHEAD = 0.05
"""Seconds of work that are kept at hand."""
LARGEST_WINDOW = 1024
"""Twice what one commit claims, so that an executor has work while the planner claims more of it."""
_REMEMBERED = 5
"""Tasks, of which the one in the middle counts: one that the machine has kept waiting says nothing of the others."""


class Pace:
    """The prefetch window of one runner.

    It starts closed, opens when tasks prove to be short, and closes when they prove to be long.

    Attributes:
        window: How many tasks are fetched beyond those that can run at once.
    """

    __slots__ = ("_last", "window")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_REMEMBERED)
        self.window = 0

    def observe(self, seconds: float) -> None:
        """Take note of how long a task took."""
        self._last.append(max(seconds, 1e-6))
        usual = median_low(self._last)
        self.window = 0 if usual > LONGEST_PREFETCHED else min(LARGEST_WINDOW, int(WORK_AHEAD / usual))

    def stuck(self) -> None:
        """Take note that a task keeps those that were fetched in advance waiting, and fetch none until tasks end."""
        self._last.clear()
        self.window = 0
