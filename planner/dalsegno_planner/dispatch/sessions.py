"""The executors that are connected to this planner: their code, their credit, and the tasks on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from dalsegno.errors import UsageError
from dalsegno.v1 import definition_pb2, executor_service_pb2
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.store.definitions import DefinitionKey, DefinitionRow

_KINDS = {
    definition_pb2.DEFINITION_KIND_FLOW: "flow",
    definition_pb2.DEFINITION_KIND_PIPELINE: "pipeline",
    definition_pb2.DEFINITION_KIND_STEP: "step",
}

_MOST = 2**31 - 1
"""No number of a call is above this; what comes from outside may be."""
_MOST_CREDIT = 1_000_000

Message = executor_service_pb2.ExecutorServiceWorkResponse


class Token(NamedTuple):
    """Proves that a task was given to the session that speaks of it."""

    execution_id: UUID
    number: int
    epoch: int

    @classmethod
    def of(cls, message: executor_service_pb2.TaskToken) -> Token:
        """Read a token from its message.

        Raises:
            UsageError: If it cannot be one.
        """
        if len(message.execution_id) != 16 or max(message.number, message.epoch) > _MOST:
            raise UsageError("a message names a task by a token that no planner has given", reason="INVALID_TOKEN")
        return cls(UUID(bytes=message.execution_id), message.number, message.epoch)

    def message(self) -> executor_service_pb2.TaskToken:
        """Return the token as a message."""
        return executor_service_pb2.TaskToken(
            execution_id=self.execution_id.bytes, number=self.number, epoch=self.epoch
        )


@dataclass(slots=True)
class Awaited:
    """Calls that a body has submitted and whose outcome it has not been told.

    Attributes:
        numbers: Which.
        look_at: When to look whether the outcomes are there, in the event loop's time.
        pause: Seconds between the last look and that one.
    """

    numbers: set[int] = field(default_factory=set)
    look_at: float = 0.0
    pause: float = 0.0


@dataclass(slots=True, eq=False)
class Session:
    """One stream of an executor. A reconnect makes a new one with the same ID and a higher generation."""

    id: UUID
    executor: str
    project: str
    pinned_only: bool
    generation: int
    routes: set[str]
    steps_credit: int = 0
    bodies_credit: int = 0
    may_find_work: bool = True
    """False once a claim left credit over; true again when anything may have become ready."""
    held: dict[tuple[UUID, int], int] = field(default_factory=dict)
    """The epochs of the tasks that were sent and have not ended, by execution and number."""
    unaccepted: dict[Token, float] = field(default_factory=dict)
    """By when the tasks that were sent are to be accepted, in the event loop's time."""
    preparing: dict[UUID, list[executor_service_pb2.ResolvedCall]] = field(default_factory=dict)
    """Outcomes for bodies whose recorded calls are being read: they are sent after the body."""
    awaiting: dict[UUID, Awaited] = field(default_factory=dict)
    """What the bodies that were sent wait for, by execution."""
    lines_stored: asyncio.Future[None] | None = None
    """Done once the lines of logs that came last are stored; what is reported after them waits for it."""
    outgoing: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    """Bounded by the credit; None ends the stream."""

    def send(self, message: Message) -> None:
        """Queue a message for the stream's writer."""
        self.outgoing.put_nowait(message)

    def close(self) -> None:
        """End the stream after what is queued."""
        self.outgoing.put_nowait(None)

    def add_credit(self, steps: int, bodies: int) -> None:
        """Note free slots. No executor has more of them than this takes note of."""
        self.steps_credit = min(self.steps_credit + steps, _MOST_CREDIT)
        self.bodies_credit = min(self.bodies_credit + bodies, _MOST_CREDIT)

    def wants_work(self) -> bool:
        """Whether a claim for this session may find something."""
        return self.may_find_work and (self.steps_credit > 0 or self.bodies_credit > 0)

    def sent(self, token: Token, accept_by: float) -> None:
        """Note that a task is on its way."""
        self.held[token.execution_id, token.number] = token.epoch
        self.unaccepted[token] = accept_by

    def ended(self, token: Token) -> None:
        """Note that a task has ended or gone back."""
        self.unaccepted.pop(token, None)
        if self.held.get((token.execution_id, token.number)) == token.epoch:
            del self.held[token.execution_id, token.number]
            if token.number == BODY:
                self.awaiting.pop(token.execution_id, None)

    def awaits(self, body: Token, numbers: Iterable[int], look_at: float) -> None:
        """Note that a body waits for the outcomes of calls."""
        known = {number for number in numbers if number <= _MOST}
        if known and self.held.get((body.execution_id, BODY)) == body.epoch:
            self.awaiting.setdefault(body.execution_id, Awaited(look_at=look_at)).numbers |= known

    def told(self, execution_id: UUID, number: int) -> None:
        """Note that a body is told an outcome."""
        awaited = self.awaiting.get(execution_id)
        if awaited is not None:
            awaited.numbers.discard(number)

    def stop(self, tokens: Sequence[Token], reason: str) -> None:
        """Have the executor stop tasks that are not its any more."""
        if tokens:
            messages = [token.message() for token in tokens]
            self.send(Message(cancel=executor_service_pb2.Cancel(tokens=messages, reason=reason)))
            for token in tokens:
                self.ended(token)

    def overdue(self, now: float) -> list[Token]:
        """Return the tasks that were not accepted in time."""
        return [token for token, accept_by in self.unaccepted.items() if accept_by < now]


class Sessions:
    """All sessions of this planner, by ID."""

    def __init__(self) -> None:
        self._sessions: dict[UUID, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def get(self, session_id: UUID) -> Session | None:
        """Return the session with this ID, if it is connected here."""
        return self._sessions.get(session_id)

    def add(self, session: Session) -> None:
        """Add a session. An older stream of the same executor is ended."""
        older = self._sessions.get(session.id)
        if older is not None:
            older.close()
        self._sessions[session.id] = session

    def remove(self, session: Session) -> None:
        """Remove a session, unless a newer stream of the same executor has taken its place."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]


def task_route(project: str, module: str, name: str, digest: str = "") -> str:
    """Return the text by which tasks find executors; the SQL function of the same name returns the same."""
    return f"{project}/{module}:{name}" + (f"@{digest}" if digest else "")


def routes_of(definitions: Iterable[definition_pb2.Definition], project: str, *, pinned_only: bool) -> set[str]:
    """Return the routes that an executor with these definitions serves."""
    routes: set[str] = set()
    for definition in definitions:
        routes.add(task_route(project, definition.module, definition.name, definition.digest))
        if not pinned_only:
            routes.add(task_route(project, definition.module, definition.name))
    return routes


def definition_rows(definitions: Iterable[definition_pb2.Definition], project: str) -> list[DefinitionRow]:
    """Return definitions as they are stored."""
    return [
        DefinitionRow(
            DefinitionKey(project, _KINDS[one.kind], one.module, one.name, one.digest),
            one.SerializeToString(),
        )
        for one in definitions
        if one.kind in _KINDS
    ]
