"""Logs of user code: written in batches, read in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("logs")

PAGE_BYTES = 2 * 1024 * 1024
"""A page ends where it has as many bytes of text."""


class LogRow(NamedTuple):
    """A new line, its fields in the order of the insert."""

    execution_id: UUID
    written_at: datetime
    number: int
    invocation_id: str
    attempt: int
    level: str
    logger: str
    text: str
    left_out: int


class LogPlace(NamedTuple):
    """A place in the log of an execution: after the line of this time and sequence."""

    written_at: datetime
    sequence: int


START = LogPlace(datetime(1, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A line, or with `left_out` above 0 the entry in the place of lines that are missing."""

    written_at: datetime
    sequence: int
    number: int
    invocation_id: str
    attempt: int
    level: str
    logger: str
    text: str
    left_out: int


async def insert(connection: Connection, rows: Sequence[LogRow]) -> None:
    """Store lines; those of executions that are not there are left out."""
    await connection.execute(SQL["insert"], *map(list, zip(*rows, strict=True)))


async def list_page(
    connection: Connection, execution_id: UUID, *, after: LogPlace, numbers: Sequence[int] | None, limit: int
) -> tuple[list[StoredLine], LogPlace | None]:
    """Return lines of an execution by their time, all or those of some invocations.

    Returns:
        The page, and the place where the next one starts; None where this is the last.
    """
    rows = await connection.fetch(SQL["page"], execution_id, *after, numbers, limit)
    page: list[StoredLine] = []
    size = 0
    for row in rows:
        line = StoredLine(**dict(row))
        size += len(line.text)
        if size > PAGE_BYTES and page:
            break
        page.append(line)
    more = len(page) < len(rows) or len(rows) == limit
    return page, LogPlace(page[-1].written_at, page[-1].sequence) if more and page else None
