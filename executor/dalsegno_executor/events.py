"""What a session has its stream process do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, TypeAlias

from dalsegno.v1.executor_service_pb2 import Ack, ResolvedCall, Task, Welcome
from dalsegno_executor.tokens import TaskKey

RunnerId = NewType("RunnerId", int)
NO_RUNNER = RunnerId(0)
"""In the place of a runner: the stream process itself has reported, and asks for no answer."""


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The planner has answered; it sets the timings."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Deliver:
    """Tasks for runners, and pages of recorded calls for bodies that they have."""

    tasks: Sequence[Task]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of reports that a runner wants to know of, each with the runner's own ID for it."""

    runner: RunnerId
    acks: Sequence[Ack]


@dataclass(frozen=True, slots=True)
class Resolve:
    """Outcomes of calls that bodies have submitted."""

    calls: Sequence[ResolvedCall]


@dataclass(frozen=True, slots=True)
class Stop:
    """Tasks that are not this executor's any more."""

    keys: Sequence[TaskKey]
    reason: str


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The planner is about to go."""

    reason: str


Event: TypeAlias = Welcomed | Deliver | Settled | Resolve | Stop | DrainAsked
