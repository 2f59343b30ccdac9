"""The executors that are connected to this planner: their code, their credit, and the tasks on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from asyncpg.pgproto import pgproto

from dalsegno.errors import UsageError
from dalsegno.v1 import definition_pb2, executor_service_pb2
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.composites import TaskToken
from dalsegno_planner.dispatch.credit import Credit, Slots
from dalsegno_planner.store.definitions import DefinitionKey, DefinitionRow

_KINDS = {
    definition_pb2.DEFINITION_KIND_FLOW: "flow",
    definition_pb2.DEFINITION_KIND_PIPELINE: "pipeline",
    definition_pb2.DEFINITION_KIND_STEP: "step",
}

_MOST = 2**31 - 1
"""No number of a call is above this; what comes from outside may be."""

Message = executor_service_pb2.ExecutorServiceWorkResponse


@lru_cache(maxsize=4096)
def uuid_of(data: bytes) -> UUID:
    """Return the UUID of 16 bytes, of the kind that the database takes and compares fastest."""
    return pgproto.UUID(data)


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
        execution_id, number, epoch = message.execution_id, message.number, message.epoch
        if len(execution_id) != 16 or number > _MOST or epoch > _MOST:
            raise UsageError("a message names a task by a token that no planner has given", reason="INVALID_TOKEN")
        return cls(uuid_of(execution_id), number, epoch)

    def of_session(self, session_id: UUID) -> TaskToken:
        """Return the token as the database takes it from a session."""
        return TaskToken(self.execution_id, self.number, self.epoch, session_id)

    def message(self) -> executor_service_pb2.TaskToken:
        """Return the token as a message."""
        message = executor_service_pb2.TaskToken()
        self.fill(message)
        return message

    def fill(self, message: executor_service_pb2.TaskToken) -> None:
        """Write the token into a message."""
        message.execution_id = self.execution_id.bytes
        message.number = self.number
        message.epoch = self.epoch


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


class Held(NamedTuple):
    """A task that a session has."""

    epoch: int
    lane: Lane = Lane.LIVE
    """Of one from before a reconnect it is not known, and it is not made to wait."""
    limited: bool = False
    """Whether its end may let others begin, of any lane."""


@dataclass(slots=True, eq=False)
class Asked:
    """The credit that a session has put into a claim."""

    session: Session
    lane: Lane
    steps: Slots
    bodies: Slots

    def fill(self, *, is_body: bool) -> bool:
        """Put a claimed task in; return whether into what is reserved for live ones."""
        return (self.bodies if is_body else self.steps).fill()

    def settle(self) -> None:
        """Give back what was not filled."""
        self.session.steps.give_back(self.lane, self.steps)
        self.session.bodies.give_back(self.lane, self.bodies)


@dataclass(slots=True, eq=False)
class Session:
    """One stream of an executor. A reconnect makes a new one with the same ID and another generation."""

    id: UUID
    executor: str
    project: str
    pinned_only: bool
    generation: int
    routes: set[str]
    steps: Credit = field(default_factory=Credit)
    bodies: Credit = field(default_factory=Credit)
    held: dict[tuple[UUID, int], Held] = field(default_factory=dict)
    """The tasks that were sent and have not ended, by execution and number."""
    acks_with_tasks: bool = False
    """Whether the executor takes acks that come with tasks."""
    unaccepted: dict[Token, float] = field(default_factory=dict)
    """By when the tasks that were sent are to be accepted, in the event loop's time."""
    preparing: dict[UUID, list[executor_service_pb2.ResolvedCall]] = field(default_factory=dict)
    """Outcomes for bodies whose recorded calls are being read: they are sent after the body."""
    awaiting: dict[UUID, Awaited] = field(default_factory=dict)
    """What the bodies that were sent wait for, by execution."""
    lines_stored: asyncio.Future[None] | None = None
    """Done once the lines of logs that came last are stored; what is reported after them waits for it."""
    held_up: bool = False
    """Whether nothing more is read of its stream until what has been is taken in."""
    outgoing: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    """Bounded by the credit; None ends the stream."""

    def send(self, message: Message) -> None:
        """Queue a message for the stream's writer."""
        self.outgoing.put_nowait(message)

    def close(self) -> None:
        """End the stream after what is queued."""
        self.outgoing.put_nowait(None)

    def add_credit(self, credit: executor_service_pb2.Credit) -> None:
        """Note free slots."""
        if credit.instead:
            self.steps.withdraw()
            self.bodies.withdraw()
        self.steps.offer(credit.steps, credit.live_steps)
        self.bodies.offer(credit.bodies, credit.live_bodies)

    def wants_work(self, lane: Lane) -> bool:
        """Whether a claim of this lane may find something for this session."""
        return self.steps.wanted(lane) or self.bodies.wanted(lane)

    def ask(self, lane: Lane, most: int) -> Asked:
        """Put the credit that there is for a lane, up to `most` of each kind, into a claim."""
        return Asked(self, lane, self.steps.take(lane, most), self.bodies.take(lane, most))

    def look_again(self, lanes: Collection[Lane] = tuple(Lane)) -> None:
        """Note that there may be work to claim."""
        self.steps.look_again(lanes)
        self.bodies.look_again(lanes)

    def lane_of(self, token: Token) -> Lane:
        """Return the lane of a task, or of the body that a token is of."""
        held = self.held.get((token.execution_id, token.number))
        return Lane.LIVE if held is None else held.lane

    def body_in_hand(self, execution_id: UUID) -> Token | None:
        """Return the token of an execution's body, if this session has it."""
        held = self.held.get((execution_id, BODY))
        return None if held is None else Token(execution_id, BODY, held.epoch)

    def limited(self, token: Token) -> bool:
        """Whether the end of a task may let others begin that have the same limit."""
        held = self.held.get((token.execution_id, token.number))
        return held is not None and held.limited

    def sent(self, token: Token, lane: Lane, accept_by: float, *, limited: bool = False) -> None:
        """Note that a task is on its way."""
        self.held[token.execution_id, token.number] = Held(token.epoch, lane, limited)
        self.unaccepted[token] = accept_by

    def ended(self, token: Token) -> None:
        """Note that a task has ended or gone back."""
        self.unaccepted.pop(token, None)
        held = self.held.get((token.execution_id, token.number))
        if held is not None and held.epoch == token.epoch:
            del self.held[token.execution_id, token.number]
            if token.number == BODY:
                self.awaiting.pop(token.execution_id, None)

    def awaits(self, body: Token, numbers: Iterable[int], look_at: float) -> None:
        """Note that a body waits for the outcomes of calls."""
        known = {number for number in numbers if number <= _MOST}
        if known and self.body_in_hand(body.execution_id) == body:
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
