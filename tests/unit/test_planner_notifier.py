"""What is to be said to other planners, while nobody can be told."""

from __future__ import annotations

from uuid import UUID

from dalsegno_planner.dispatch import notify
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.dispatch.notify import Notifier


def test_what_cannot_be_said_is_not_gathered_without_end() -> None:
    notifier = Notifier("postgresql:///nowhere", Bus(), lambda changed: None, lambda ended: None)
    for number in range(notify._MOST_UNSENT + 50):
        notifier.announce([UUID(int=number)])
        notifier.announce_ended(UUID(int=number))
    notifier.announce_work()
    assert len(notifier._unsent) == notify._MOST_UNSENT
