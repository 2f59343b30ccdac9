"""What the same Postgres can do at all: durable commits and batched updates, with nothing of ours in between."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import uvloop

from tests.benchmarks.samples import Samples

Result = TypeVar("Result")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_DATABASE = "benchmark_raw"
_COMMITS = 300
_BATCHES = 10
_BATCH = 1_000
_INSERT = "INSERT INTO commits (note) VALUES ($1)"
_UPDATE = "UPDATE counters SET value = value + 1 WHERE id = ANY ($1::integer[])"
_FACTS = """
SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('wal_sync_method') AS wal_sync_method,
       current_setting('shared_buffers') AS shared_buffers
"""


@dataclass(frozen=True, slots=True)
class RawLimits:
    """One look at the server's limits.

    Attributes:
        commit_ms: One-row inserts, each a transaction of its own, over one connection.
        updates_per_second: Rows updated a second, in transactions of 1,000.
    """

    commit_ms: Samples
    updates_per_second: Samples


class RawPostgres:
    """A connection to a database of its own on the server that the engine uses.

    Args:
        database_url: Of any database of that server.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def __enter__(self) -> Self:
        self._run(self._create_database())
        self._connection: Connection = self._run(asyncpg.connect(self._own_url))
        self._run(self._create_tables())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._connection.close(timeout=5))
        self._runner.close()

    def facts(self) -> dict[str, str]:
        """Returns the settings that decide what a commit costs."""
        (found,) = self._run(self._connection.fetch(_FACTS))
        return dict(found)

    def limits(self) -> RawLimits:
        """Measures both limits; takes about a second."""
        return RawLimits(self._run(self._commits()), self._run(self._updates()))

    async def _commits(self) -> Samples:
        insert = await self._connection.prepare(_INSERT)
        taken = []
        for number in range(_COMMITS):
            begin = perf_counter()
            await insert.fetch(f"row {number}")
            taken.append((perf_counter() - begin) * 1e3)
        return Samples.of(taken)

    async def _updates(self) -> Samples:
        update = await self._connection.prepare(_UPDATE)
        ids = list(range(_BATCH))
        rates = []
        for _ in range(_BATCHES):
            begin = perf_counter()
            await update.fetch(ids)
            rates.append(_BATCH / (perf_counter() - begin))
        return Samples.of(rates)

    async def _create_database(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {_DATABASE}")
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            await connection.close()

    async def _create_tables(self) -> None:
        await self._connection.execute(
            f"""
            CREATE TABLE commits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL);
            CREATE TABLE counters (id integer PRIMARY KEY, value integer NOT NULL) WITH (fillfactor = 50);
            INSERT INTO counters SELECT n, 0 FROM generate_series(0, {_BATCH - 1}) n;
            """
        )

    @property
    def _own_url(self) -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{_DATABASE}"))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)
