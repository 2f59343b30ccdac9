"""What recorded executions have besides their graph."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from dalsegno.errors import UsageError
from dalsegno.v1.value_pb2 import Payload
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("imports")


class WaitRow(NamedTuple):
    """A wait that has ended; the answer is serialized when it is stored."""

    number: int
    state: str
    question: str
    schema: str
    metadata: str
    answered_by: str
    asked_at: datetime | None
    deadline: datetime | None
    answered_at: datetime | None
    answer: Payload | None

    def columns(self, now: datetime) -> tuple[object, ...]:
        """Return what is stored; a wait that does not say when it was asked was asked when it was answered, or now."""
        asked_at = self.asked_at or self.answered_at or now
        answer = None if self.answer is None else self.answer.SerializeToString()
        return (*self[:6], asked_at, *self[7:9], answer)


@dataclass(frozen=True, slots=True)
class Yields:
    """At which places futures were given to a body; there may be as many as there are calls."""

    places: array[int] = field(default_factory=lambda: array("I"))
    numbers: array[int] = field(default_factory=lambda: array("I"))

    def add(self, place: int, number: int) -> None:
        """Add the place of a call."""
        self.places.append(place)
        self.numbers.append(number)


async def insert_yields(connection: Connection, execution_id: ExecutionId, yields: Yields) -> None:
    """Store the order of an imported execution's futures.

    Raises:
        UsageError: If two calls have the same place.
    """
    if not yields.places:
        return
    count = await connection.fetchval(SQL["yields"], execution_id, yields.places, yields.numbers)
    if count != len(yields.places):
        raise UsageError("two steps are yielded at the same place; give each a place of its own", reason="SAME_PLACE")


async def insert_waits(connection: Connection, execution_id: ExecutionId, rows: Sequence[WaitRow]) -> None:
    """Store the waits of an imported execution."""
    if rows:
        now = datetime.now(UTC)
        records = [(execution_id, *row.columns(now)) for row in rows]
        await connection.copy_records_to_table("waits", records=records, columns=("execution_id", *WaitRow._fields))
