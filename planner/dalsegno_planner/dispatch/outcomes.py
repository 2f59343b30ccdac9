"""Outcomes of submitted calls that nobody has told their body of.

Whoever commits an outcome tells the body, if it is connected to the same planner, and other planners hear of it. Either
may fail: the body's executor is cut off at that moment, or the planner dies right after its commit. So what bodies wait
for is looked at now and then, less and less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from dalsegno_planner.dispatch.sessions import Awaited, Session, Sessions
from dalsegno_planner.store.sql import load

_QUERIES = load("dispatch")
_AT_ONCE = 500
"""Outcomes that are read at once: each may be as large as a value that is kept in Postgres."""
_LONGEST_PAUSE = 8
"""In polls."""


@dataclass(slots=True)
class _Due:
    sessions: list[Session] = field(default_factory=list)
    executions: list[UUID] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def add(self, session: Session, execution_id: UUID, awaited: Awaited) -> None:
        wanted = list(awaited.numbers)[: _AT_ONCE - len(self.numbers)]
        self.sessions += [session] * len(wanted)
        self.executions += [execution_id] * len(wanted)
        self.numbers += wanted


class Outcomes:
    """Looks for what bodies wait for.

    Args:
        sessions: The executors that host the bodies.
        deliver: Takes rows of session, execution, epoch of the body, number, outputs and failure.
        poll_interval: Seconds until a body's calls are looked at for the first time.
    """

    def __init__(
        self, sessions: Sessions, deliver: Callable[[Sequence[Mapping[str, Any]]], None], poll_interval: float
    ) -> None:
        self._sessions = sessions
        self._deliver = deliver
        self._poll_interval = poll_interval

    def hurry(self, session: Session, executions: Iterable[UUID]) -> bool:
        """Have these looked at next; return whether anything of them is waited for."""
        awaited = [found for one in executions if (found := session.awaiting.get(one)) is not None and found.numbers]
        for one in awaited:
            one.look_at = one.pause = 0.0
        return bool(awaited)

    async def look(self, connection: Any) -> None:
        """Look at what is due, and tell the bodies what is found."""
        while (due := self._due()).numbers:
            rows = await connection.fetch(_QUERIES["outcomes"], due.executions, due.numbers)
            self._deliver([row for found in rows if (row := _addressed(found, due)) is not None])
            if len(rows) < _AT_ONCE:
                return

    def _due(self) -> _Due:
        now = asyncio.get_running_loop().time()
        due = _Due()
        for session in self._sessions:
            for execution_id, awaited in session.awaiting.items():
                if awaited.numbers and awaited.look_at <= now and len(due.numbers) < _AT_ONCE:
                    due.add(session, execution_id, awaited)
                    longest = _LONGEST_PAUSE * self._poll_interval
                    awaited.pause = min(2 * awaited.pause, longest) if awaited.pause else self._poll_interval
                    awaited.look_at = now + awaited.pause
        return due


def _addressed(found: Mapping[str, Any], due: _Due) -> dict[str, Any] | None:
    """Return a row of the query with the body that it is for; None where that has gone meanwhile."""
    session = due.sessions[found["place"] - 1]
    body = session.body_in_hand(found["execution_id"])
    return None if body is None else {**dict(found), "session_id": session.id, "epoch": body.epoch}
