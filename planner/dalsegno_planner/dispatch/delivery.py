"""Sends executors what commits bring about: claimed tasks, and the outcomes that bodies wait for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog

from dalsegno.v1 import executor_service_pb2
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.dispatch.background import Background
from dalsegno_planner.dispatch.recorded import awaited_numbers, recorded_calls
from dalsegno_planner.dispatch.sessions import Message, Session, Sessions, Token
from dalsegno_planner.dispatch.tasks import ClaimedTask
from dalsegno_planner.store.pool import DATABASE_FAILED

_MESSAGE_BYTES = 1 << 20
"""Nothing is added to a message that has more than this."""

log = structlog.get_logger(__name__)


class Delivery:
    """Puts messages into the queues of the sessions that they are for.

    Args:
        sessions: The executors that are connected here.
        accept_within: Seconds in which an executor has to accept a task.
        acquire: Gives a connection, for reading what was recorded of a body.
        background: Runs what has to be read first.
    """

    def __init__(
        self,
        sessions: Sessions,
        accept_within: float,
        acquire: Callable[[], AbstractAsyncContextManager[Any]],
        background: Background,
    ) -> None:
        self._sessions = sessions
        self._accept_within = accept_within
        self._acquire = acquire
        self._background = background

    def deliver_tasks(self, claimed: Sequence[ClaimedTask]) -> None:
        """Send tasks to the streams that have claimed them.

        Where such a stream has ended since, what the executor does not name when it comes back is given to others: it
        may be here again by now.
        """
        by_session: defaultdict[Session, list[ClaimedTask]] = defaultdict(list)
        for task in claimed:
            by_session[task.session].append(task)
        for session, tasks in by_session.items():
            if self._sessions.get(session.id) is session:
                self._send_tasks(session, tasks)

    def deliver_resolved(self, rows: Sequence[Any]) -> None:
        """Send outcomes of calls to the sessions that host the bodies."""
        for row in rows:
            session = self._sessions.get(row["session_id"])
            if session is None:
                continue
            session.told(row["execution_id"], row["number"])
            call = executor_service_pb2.ResolvedCall(
                body=Token(row["execution_id"], BODY, row["epoch"]).message(), number=row["number"]
            )
            if row["failure"] is not None:
                call.failure.ParseFromString(row["failure"])
            else:
                call.outputs.ParseFromString(row["outputs"] or b"")
            held_back = session.preparing.get(row["execution_id"])
            if held_back is not None:
                held_back.append(call)
            else:
                session.send(Message(resolved=executor_service_pb2.Resolved(calls=[call])))

    def _send_tasks(self, session: Session, tasks: list[ClaimedTask]) -> None:
        accept_by = self._accept_by()
        message, size = Message(), 0
        for task in tasks:
            if task.is_body and task.recorded_count:
                session.preparing[task.token.execution_id] = []
                self._background.start(self._send_body(session, task))
                continue
            if size > _MESSAGE_BYTES:
                session.send(message)
                message, size = Message(), 0
            filled = message.tasks.tasks.add()
            task.fill(filled)
            size += task.size
            limited = not task.is_body and filled.step.options.HasField("concurrency")
            session.sent(task.token, task.lane, accept_by, limited=limited)
        if message.tasks.tasks:
            session.send(message)

    async def _send_body(self, session: Session, task: ClaimedTask) -> None:
        """Send a body with its recorded calls, a page at a time, and then the outcomes that came meanwhile."""
        execution_id = task.token.execution_id
        sent = False
        try:
            message = Message()
            body = message.tasks.tasks.add()
            task.fill(body)
            first = True
            async with self._acquire() as connection:
                async for page in recorded_calls(connection, execution_id, task.recorded_count, body.body.recorded):
                    if first:
                        session.sent(task.token, task.lane, self._accept_by())
                    else:
                        message = Message()
                        message.tasks.tasks.add(token=task.token.message(), recorded=page)
                    first = False
                    session.awaits(task.token, awaited_numbers(page), look_at=0.0)
                    session.send(message)
            sent = True
        except DATABASE_FAILED as error:
            log.warning("body_not_delivered", execution=str(execution_id), error=str(error))
        finally:
            held_back = session.preparing.pop(execution_id, [])
            if held_back:
                session.send(Message(resolved=executor_service_pb2.Resolved(calls=held_back)))
            if not sent:
                # The executor opens another stream: it does not name a body of which it has a part at most, so that
                # goes back, and it offers again the room that this one has taken.
                session.close()

    def _accept_by(self) -> float:
        return asyncio.get_running_loop().time() + self._accept_within


async def outgoing_messages(session: Session) -> AsyncIterator[Message]:
    """Yield what is to be sent to a session until it is closed; neighbouring acks and tasks are put together."""
    while True:
        message = await session.outgoing.get()
        while message is not None and not session.outgoing.empty():
            following = session.outgoing.get_nowait()
            both = None if following is None else _merged(session, message, following)
            if both is None:
                yield message
            message = both or following
        if message is None:
            return
        yield message


def _merged(session: Session, message: Message, following: Message) -> Message | None:
    """Return one message for both where both are acks, or both outcomes of no great size, or tasks follow acks."""
    match message.WhichOneof("message"), following.WhichOneof("message"):
        case "acks", "acks":
            message.MergeFrom(following)
            return message
        case "resolved", "resolved" if message.ByteSize() <= _MESSAGE_BYTES:
            message.MergeFrom(following)
            return message
        case "acks", "tasks" if session.acks_with_tasks:
            following.tasks.acks.extend(message.acks.acks)
            return following
        case _:
            return None
