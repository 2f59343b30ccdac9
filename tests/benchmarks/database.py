"""What the tables have to tell: when steps ended, and how the hot ones fare."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

HOT = ("tasks", "executions", "sessions", "invocations")
"""Tables of which rows are written again and again."""

_LONGEST_PAUSE = """
SELECT coalesce(max(at - before), '0') FROM (
    SELECT at, lag(at) OVER (ORDER BY at) AS before FROM events
    WHERE state = 'completed' AND number > 0 AND at >= $1) steps
"""
_STATE = """
SELECT s.relname AS name, n_tup_upd AS updates, n_tup_hot_upd AS hot, n_dead_tup AS dead, n_live_tup AS live,
       autovacuum_count AS vacuums, pg_table_size(relid) AS bytes, pg_indexes_size(relid) AS index_bytes
FROM pg_stat_user_tables s WHERE relname = ANY ($1)
"""


@dataclass(frozen=True, slots=True)
class TableState:
    """How one table fares.

    Attributes:
        updates: Rows that were updated, ever.
        hot: Of these, those that wrote no index.
        dead: Versions of rows that nobody can see any more.
        live: The others.
        vacuums: How often autovacuum has been there.
        megabytes: Of the table.
        index_megabytes: Of its indexes.
    """

    updates: int
    hot: int
    dead: int
    live: int
    vacuums: int
    megabytes: float
    index_megabytes: float


def new_database(dsn: str) -> str:
    """Makes another, empty database on the same server, and returns how to connect to it."""
    name = f"another_{uuid4().hex}"
    _fetch(dsn, f"CREATE DATABASE {name}")
    place, mark, options = dsn.partition("?")
    return f"{place.rpartition('/')[0]}/{name}{mark}{options}"


def now(dsn: str) -> Any:
    """The time, by the database's clock."""
    return _fetch(dsn, "SELECT clock_timestamp() AS now")[0]["now"]


def longest_pause_s(dsn: str, since: Any) -> float:
    """The longest time in which no step has completed, in seconds."""
    (row,) = _fetch(dsn, _LONGEST_PAUSE, since)
    return float(row[0].total_seconds())


def hot_tables(dsn: str) -> Mapping[str, TableState]:
    """How the hot tables fare."""
    return {
        row["name"]: TableState(
            row["updates"],
            row["hot"],
            row["dead"],
            row["live"],
            row["vacuums"],
            row["bytes"] / 1e6,
            row["index_bytes"] / 1e6,
        )
        for row in _fetch(dsn, _STATE, HOT)
    }


def _fetch(dsn: str, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
    async def fetched() -> Sequence[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    return asyncio.run(fetched())
