"""Tasks that were claimed go to the stream that has claimed them, and to no other."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from dalsegno_planner.dispatch.background import Background
from dalsegno_planner.dispatch.delivery import Delivery
from dalsegno_planner.dispatch.sessions import Session, Sessions
from dalsegno_planner.dispatch.tasks import ClaimedTask

ROW: dict[str, Any] = {
    "lane": 0, "project": "default", "module": "training", "name": "work", "pinned_digest": "", "invocation_id": "work",
    "recorded_count": 0, "attempt": 1, "attempts_before": 0, "inputs": b"", "options": b"", "flow_inputs": None,
    "upstream": None, "upstream_outputs": None,
}  # fmt: skip


def stream(generation: int) -> Session:
    return Session(UUID(int=1), "worker", "default", False, generation, set())


def no_connection() -> AbstractAsyncContextManager[Any]:
    raise AssertionError("nothing is read for steps")


async def test_what_an_ended_stream_has_claimed_is_not_sent_to_the_next_one_of_its_executor() -> None:
    """The executor had not named it when it came back, so it went to others: it would be run twice."""
    sessions = Sessions()
    delivery = Delivery(sessions, 1.0, no_connection, Background())
    older, newer = stream(1), stream(2)
    sessions.add(older)
    sessions.add(newer)
    for number, session in enumerate([older, newer], start=1):
        delivery.deliver_tasks(
            [
                ClaimedTask.of(
                    session, {**ROW, "execution_id": UUID(int=2), "number": number, "epoch": 1}, reserved=False
                )
            ]
        )
    assert list(newer.held) == [(UUID(int=2), 2)]
    message = newer.outgoing.get_nowait()
    assert message is not None
    assert [task.token.number for task in message.tasks.tasks] == [2]
    assert newer.outgoing.empty()
