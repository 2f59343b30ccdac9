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

    @property
    def overdone(self) -> bool:
        """Whether much more has been offered than there is room for now."""
        return self.offered > 0 and self.in_hand + self.offered > 2 * self.target


@dataclass(slots=True)
class AllSlots:
    """The slots of an executor.

    Attributes:
        can_withdraw: Whether the planner takes offers that are instead of earlier ones.
        changed: Whether there may be something to offer; asked for each message, so that the slots need not be.
    """

    steps: Slots = field(default_factory=Slots)
    bodies: Slots = field(default_factory=Slots)
    live_steps: Slots = field(default_factory=Slots)
    live_bodies: Slots = field(default_factory=Slots)
    can_withdraw: bool = False
    changed: bool = False

    def aim_at(self, steps: int, bodies: int, live_steps: int, live_bodies: int) -> None:
        """Set how many tasks of each kind may be in hand at once."""
        targets = (steps, bodies, live_steps, live_bodies)
        for slots, target in zip(self._all, targets, strict=True):
            if slots.target != target:
                slots.target = target
                self.changed = True

    def receive(self, task: Task) -> Slots:
        """Note that a task has come, and return those that it was sent for; the caller decides whether it takes one."""
        slots = self.of(task)
        slots.offered = max(0, slots.offered - 1)
        self.changed = True
        return slots

    def free(self, slots: Slots) -> None:
        """Note that one of them is free again."""
        slots.in_hand -= 1
        self.changed = True

    def of(self, task: Task) -> Slots:
        """Return those that a task was sent for."""
        if task.HasField("body"):
            return self.live_bodies if task.reserved else self.bodies
        return self.live_steps if task.reserved else self.steps

    def begin_anew(self, *, can_withdraw: bool) -> None:
        """Forget what another stream was offered."""
        self.can_withdraw = can_withdraw
        for slots in self._all:
            slots.offered = 0
        self.changed = True

    def take_offers(self) -> Credit | None:
        """Return what to offer now, if anything."""
        if not self.changed:
            return None
        self.changed = False
        # What the planner has sent by the time it hears of this comes all the same.
        instead = self.can_withdraw and any(slots.overdone for slots in self._all)
        if instead:
            for slots in self._all:
                slots.offered = 0
        credit = Credit(
            instead=instead,
            steps=self.steps.take_offer(),
            bodies=self.bodies.take_offer(),
            live_steps=self.live_steps.take_offer(),
            live_bodies=self.live_bodies.take_offer(),
        )
        return credit if credit.ByteSize() else None

    @property
    def _all(self) -> tuple[Slots, ...]:
        return self.steps, self.bodies, self.live_steps, self.live_bodies
