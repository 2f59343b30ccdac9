"""What waits to be sent to the planner, besides reports and credit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dalsegno.v1.definition_pb2 import Definition
from dalsegno.v1.executor_service_pb2 import Heartbeat, StepProgress, TaskToken
from dalsegno_executor.tokens import TaskKey


@dataclass(slots=True)
class Outbox:
    """That of one stream.

    Attributes:
        arrived: Tasks that will be accepted, if their end is not durable before.
        progress: How far calls have come, of each the latest; it goes with the next heartbeat.
    """

    announced: list[Definition] = field(default_factory=list)
    arrived: list[TaskKey] = field(default_factory=list)
    accepted: list[TaskToken] = field(default_factory=list)
    returned: list[TaskToken] = field(default_factory=list)
    heartbeat: Heartbeat | None = None
    progress: dict[tuple[TaskKey, int], StepProgress] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.accepted or self.returned or self.announced) or self.heartbeat is not None

    def take_heartbeat(self, holds: Callable[[TaskKey], bool]) -> Heartbeat | None:
        """Remove the heartbeat that waits, and return it with the progress of what is in hand."""
        heartbeat, self.heartbeat = self.heartbeat, None
        if heartbeat is not None:
            heartbeat.progress.extend(said for (key, _), said in self.progress.items() if holds(key))
            self.progress = {}
        return heartbeat
