"""The rows that dispatch hands to Postgres, each in the order of the composite type that has its name in snake case.

They go to the database as plain tuples: what is written here is the one place that knows the order. A test compares it
with the catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class TaskResult(NamedTuple):
    """The end of a step's task, or of one attempt of it; without a session, of a ready task."""

    item: int
    execution_id: UUID
    number: int
    epoch: int
    session_id: UUID | None
    outcome: str
    """completed, failed or retry."""
    outputs: bytes | None
    failure: bytes | None
    code_digest: str
    started_at: datetime | None
    finished_at: datetime | None
    delay: float
    executor: str


class BodyCall(NamedTuple):
    """A durable call of a flow's body; the token is the body's."""

    item: int
    execution_id: UUID
    epoch: int
    session_id: UUID
    action: str
    """completed, failed, submitted, reused, wait or started."""
    number: int
    position: int
    kind: str
    name: str
    invocation_id: str
    module: str
    pinned_digest: str
    code_digest: str
    inputs: bytes
    upstream: Sequence[int]
    after: Sequence[int]
    reads_inputs: Sequence[str]
    options: bytes
    outputs: bytes | None
    failure: bytes | None
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    delay: float
    stale_inputs: bool
    question: str
    schema: str
    metadata: str
    timeout: float | None
    yield_places: Sequence[int]
    yielded: Sequence[int]


class FailedAttempt(NamedTuple):
    """An attempt that a body made of one of its calls and that failed."""

    item: int
    execution_id: UUID
    number: int
    attempt: int
    executor: str
    started_at: datetime | None
    finished_at: datetime | None
    failure: bytes


class BodyEnd(NamedTuple):
    """The end of a body's task; without a session, of a ready one."""

    item: int
    execution_id: UUID
    epoch: int
    session_id: UUID | None
    outcome: str
    """returned, failed or suspended."""
    result: bytes | None
    failure: bytes | None
    not_reached: Sequence[int] = ()
    waits: Sequence[int] = ()
    yield_places: Sequence[int] = ()
    yielded: Sequence[int] = ()


class TaskToken(NamedTuple):
    """A task, as the session that has it speaks of it."""

    execution_id: UUID
    number: int
    epoch: int
    session_id: UUID


class Claim(NamedTuple):
    """How many tasks of one lane a session takes: of ranks from the lowest to the highest.

    The turn goes to executions after those that had the last one.
    """

    session_id: UUID
    generation: int
    steps: int
    bodies: int
    routes: Sequence[str]
    lowest: int
    highest: int
    last_step: UUID
    last_body: UUID


COMPOSITES = (TaskResult, BodyCall, FailedAttempt, BodyEnd, TaskToken, Claim)
