"""How many tasks an executor takes: of each kind, and besides of those that are live."""

from __future__ import annotations

from dataclasses import dataclass, field

from dalsegno.v1.executor_service_pb2 import Credit, Task


@dataclass(slots=True)
class Slots:
    """Those for one kind of task.

    Attributes:
        target: How many tasks may be in hand at once.
        offered: How many of them the planner has been told of and has not used.
        in_hand: How many are taken.
    """

    target: int = 0
    offered: int = 0
    in_hand: int = 0

    def take_offer(self) -> int:
        """Return how much to offer now; a few at a time where there are many, so that messages stay few."""
        missing = self.target - self.in_hand - self.offered
        if missing < max(1, self.target // 8):
            return 0
        self.offered += missing
        return missing


@dataclass(slots=True)
class AllSlots:
    """The slots of an executor."""

    steps: Slots = field(default_factory=Slots)
    bodies: Slots = field(default_factory=Slots)
    live_steps: Slots = field(default_factory=Slots)
    live_bodies: Slots = field(default_factory=Slots)

    def of(self, task: Task) -> Slots:
        """Return those that a task was sent for."""
        if task.HasField("body"):
            return self.live_bodies if task.reserved else self.bodies
        return self.live_steps if task.reserved else self.steps

    def begin_anew(self) -> None:
        """Forget what another stream was offered."""
        for slots in (self.steps, self.bodies, self.live_steps, self.live_bodies):
            slots.offered = 0

    def take_offers(self) -> Credit | None:
        """Return what to offer now, if anything."""
        credit = Credit(
            steps=self.steps.take_offer(),
            bodies=self.bodies.take_offer(),
            live_steps=self.live_steps.take_offer(),
            live_bodies=self.live_bodies.take_offer(),
        )
        return credit if credit.ByteSize() else None
