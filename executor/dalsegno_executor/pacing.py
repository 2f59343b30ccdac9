"""How many tasks a runner is given in advance, decided by how fast its tasks end."""

from __future__ import annotations

LONGEST_PREFETCHED = 0.05
"""Seconds. Tasks that take longer are not fetched in advance: another executor may be free for them."""
WORK_AHEAD = 0.05
"""Seconds of work that are kept at hand."""
LARGEST_WINDOW = 256
_WEIGHT_OF_NEWEST = 0.3


class Pace:
    """The prefetch window of one runner.

    It starts closed, opens when tasks prove to be short, and closes at the first long one.

    Attributes:
        window: How many tasks are fetched beyond those that can run at once.
    """

    __slots__ = ("_seconds", "window")

    def __init__(self) -> None:
        self._seconds: float | None = None
        self.window = 0

    def observe(self, seconds: float) -> None:
        """Take note of how long a task took."""
        seconds = max(seconds, 0.0)
        if self._seconds is None or seconds > LONGEST_PREFETCHED:
            self._seconds = seconds
        else:
            self._seconds += _WEIGHT_OF_NEWEST * (seconds - self._seconds)
        long = self._seconds > LONGEST_PREFETCHED
        self.window = 0 if long else min(LARGEST_WINDOW, int(WORK_AHEAD / max(self._seconds, 1e-6)))
