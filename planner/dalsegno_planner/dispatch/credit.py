"""How many tasks a session takes, and whether looking for them is worth a claim."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dalsegno_planner.core.lanes import Lane

_MOST = 1_000_000
"""No executor has more free slots than this takes note of."""


@dataclass(slots=True)
class Slots:
    """What a claim may fill.

    Attributes:
        free: With tasks of any lane.
        reserved: Besides, with live ones.
        filled: How many of them have been.
        taken_in: How often offers had been withdrawn when it was taken out of the credit.
    """

    free: int
    reserved: int
    filled: int = 0
    taken_in: int = 0

    @property
    def left(self) -> int:
        """How many tasks fit in yet."""
        return self.free + self.reserved

    def fill(self) -> bool:
        """Put one task in; return whether into what is reserved."""
        self.filled += 1
        if self.reserved:
            self.reserved -= 1
            return True
        self.free -= 1
        return False


@dataclass(slots=True)
class Credit:
    """What a session offers for one kind of task.

    Attributes:
        free: How many tasks of any lane may be sent.
        reserved: How many live ones besides.
        may_find: By lane, whether a claim may find a task. It may not once one has found less than it had room for,
            until something may have become ready.
        withdrawn: How often all that was offered has been withdrawn.
    """

    free: int = 0
    reserved: int = 0
    may_find: list[bool] = field(default_factory=lambda: [True for _ in Lane])
    withdrawn: int = 0

    def offer(self, free: int, reserved: int) -> None:
        """Add what an executor offers."""
        self.free = min(self.free + free, _MOST)
        self.reserved = min(self.reserved + reserved, _MOST)

    def withdraw(self) -> None:
        """Forget what has been offered; what a claim has in hand of it may yet be filled."""
        self.free = self.reserved = 0
        self.withdrawn += 1

    def look_again(self, lanes: Collection[Lane]) -> None:
        """Note that something may have become ready."""
        for lane in lanes:
            self.may_find[lane] = True

    def wanted(self, lane: Lane) -> bool:
        """Whether a claim of this lane may find something."""
        return self.may_find[lane] and (self.free > 0 or (lane is Lane.LIVE and self.reserved > 0))

    def take(self, lane: Lane, most: int) -> Slots:
        """Take out what there is for a lane, up to `most`, where it is wanted."""
        if not self.wanted(lane):
            return Slots(0, 0)
        reserved = min(self.reserved, most) if lane is Lane.LIVE else 0
        taken = Slots(min(self.free, most - reserved), reserved, taken_in=self.withdrawn)
        self.free -= taken.free
        self.reserved -= taken.reserved
        self.may_find[lane] = False
        return taken

    def give_back(self, lane: Lane, slots: Slots) -> None:
        """Put back what has not been filled. Where all of it has been, there may be more to find."""
        if slots.taken_in == self.withdrawn:
            self.free += slots.free
            self.reserved += slots.reserved
        if slots.filled and not slots.left:
            self.may_find[lane] = True
