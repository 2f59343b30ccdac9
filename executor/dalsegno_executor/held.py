"""A task that an executor has in hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from dalsegno.v1.executor_service_pb2 import RECORDED_CALL_ACTION_AWAIT, RecordedCalls, Task
from dalsegno_executor.credit import Slots
from dalsegno_executor.tokens import is_live


@dataclass(slots=True)
class Held:
    """A task in hand.

    Attributes:
        slots: Those that it takes one of.
        live: Whether it goes before all that is not.
        whole: Whether all of it has come; of a body's recorded calls more may be on their way.
        ended: Its last report is made; it stays in hand until that is durable.
        leaving: It goes back as soon as none of its reports is open.
        open_reports: How many of its reports are not acknowledged.
        awaiting: For a body, the calls that it has submitted and whose outcome has not come.
    """

    slots: Slots
    live: bool
    whole: bool = True
    ended: bool = False
    leaving: bool = False
    open_reports: int = 0
    awaiting: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, task: Task, slots: Slots) -> Held:
        """Take a task in hand."""
        held = cls(slots, is_live(task))
        if task.HasField("body"):
            held.add(task.body.recorded)
        return held

    def add(self, recorded: RecordedCalls) -> None:
        """Note a page of the recorded calls of a body."""
        self.whole = not recorded.more
        self.awaiting.update(call.number for call in recorded.calls if call.action == RECORDED_CALL_ACTION_AWAIT)
