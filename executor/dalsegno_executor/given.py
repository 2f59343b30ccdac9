"""What the stream process knows of a runner: its slots, and the tasks that it was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from dalsegno.v1.executor_service_pb2 import Report, StepCompleted, Task
from dalsegno_executor.events import RunnerId
from dalsegno_executor.link import Link
from dalsegno_executor.pacing import Pace
from dalsegno_executor.runners import RunnerProcess
from dalsegno_executor.tokens import TaskKey, is_live

RESERVED_SHARE = 8
"""One of so many slots for bodies is kept for live ones."""


@dataclass(slots=True)
class BegunCall:
    """A call that a body runs itself, and that has not ended."""

    report: Report
    since: float
    shown: bool = False


@dataclass(slots=True)
class Given:
    """A task that a runner was given.

    Attributes:
        since: When it was given; for a step, from when on it can be running.
        stopped: When the runner was told to stop it; what it says of it does not count any more.
        shown: Whether the planner was told that it runs.
        calls: For a body, the calls that it runs itself at the moment, by number.
    """

    task: Task
    key: TaskKey
    since: float | None
    stopped: float | None = None
    shown: bool = False
    calls: dict[int, BegunCall] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Runner:
    """One runner, as the stream process sees it.

    Attributes:
        exclusive: It runs one task at a time, and is there to be killed.
        killed_for: Why the stream process has killed it, if it has.
        taking_back: It was asked for the steps that it has not started.
        bulk: Those of its steps that are not live, to which live ones go before.
    """

    id: RunnerId
    link: Link
    process: RunnerProcess | None
    exclusive: bool
    started: float
    step_slots: int = 0
    body_slots: int = 0
    announced: bool = False
    killed_for: str = ""
    taking_back: bool = False
    idle_since: float = 0.0
    steps: dict[TaskKey, Given] = field(default_factory=dict)
    bodies: dict[TaskKey, Given] = field(default_factory=dict)
    bulk: set[TaskKey] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)

    @property
    def ready(self) -> bool:
        """Whether it can be given tasks."""
        return self.announced and bool(self.step_slots or self.body_slots) and not self.killed_for

    @property
    def live_step_slots(self) -> int:
        """How many live steps it can take besides: where steps are short, one soon ends for each slot."""
        return self.step_slots if self.pace.window else 0

    @property
    def live_body_slots(self) -> int:
        """How many of its slots for bodies are for live ones alone."""
        return self.body_slots // RESERVED_SHARE

    @property
    def step_room(self) -> int:
        """How many more steps it can take, those in advance included."""
        return self.step_slots + self.pace.window - len(self.steps)

    def give_step(self, given: Given) -> None:
        """Note that it was given a step. A live one goes before all that has not started and is not."""
        self.steps[given.key] = given
        if not is_live(given.task):
            self.bulk.add(given.key)
            return
        if not self.bulk or len(self.steps) <= self.step_slots:
            return
        later = [key for key in islice(self.steps, self.step_slots, None) if key in self.bulk]
        for key in later:
            self.steps[key] = self.steps.pop(key)

    def observe_pace(self, reports: Iterable[Report]) -> None:
        """Take note of how long the steps took that have been completed."""
        seconds = [_duration(report.completed) for report in reports if report.WhichOneof("kind") == "completed"]
        if seconds:
            self.pace.observe(seconds)

    def at_work(self) -> Iterator[Given]:
        """Yield the steps that can be running: the first of those that it was given."""
        return islice(self.steps.values(), self.step_slots)

    def find(self, key: TaskKey) -> Given | None:
        """Return a task that it was given."""
        return self.steps.get(key) or self.bodies.get(key)

    def remove(self, key: TaskKey) -> Given | None:
        """Forget a task."""
        self.bulk.discard(key)
        return self.steps.pop(key, None) or self.bodies.pop(key, None)

    def all_given(self) -> list[Given]:
        """Return all tasks that it was given."""
        return [*self.steps.values(), *self.bodies.values()]


def _duration(completed: StepCompleted) -> float:
    begun, ended = completed.started_at, completed.finished_at
    return max(0.0, ended.seconds - begun.seconds + (ended.nanos - begun.nanos) / 1e9)
