"""Writes what user code has written, beside the commit loop: results never wait for logs for long.

Lines of a stream are stored before its later reports are recorded, so that whoever sees the end of an execution finds
what it has written. A database that is too slow for this is not waited for: what there is no room for is left out, and
an entry in its place says how much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import structlog

from dalsegno.v1.executor_service_pb2 import WrittenLine
from dalsegno_planner.dispatch.background import end
from dalsegno_planner.store import logs
from dalsegno_planner.store.logs import LogRow
from dalsegno_planner.store.pool import DATABASE_FAILED, Pool
from dalsegno_planner.times import moment

CAPACITY = 8 * 1024 * 1024
"""Bytes that may wait."""
LONGEST_LINE = 32 * 1024
"""Characters of text that are stored. Executors cut lines before that."""
_REPORTS_WAIT = 0.5
"""Seconds that the reports of a stream wait for its lines."""
_WRITE_TIMEOUT = 5.0
_TRY_AGAIN_AFTER = 1.0
_ROW_OVERHEAD = 100
_MOST = 2**31 - 1

Stored: TypeAlias = "asyncio.Future[None]"

log = structlog.get_logger(__name__)


class LogWriter:
    """Gathers lines while the previous ones are written.

    Args:
        capacity: How many bytes may wait.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._rows: list[LogRow] = []
        self._size = 0
        self._left_out: dict[UUID, LogRow] = {}
        # Of the lines that wait, and of the last that came.
        self._stored: Stored | None = None
        self._last: Stored | None = None
        self._behind = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, pool: Pool) -> asyncio.Task[None]:
        """Start writing."""
        self._task = asyncio.create_task(self._run(pool), name="log-writer")
        return self._task

    async def stop(self) -> None:
        """Stop, once what waits is written or its time is over."""
        if self._task is None:
            return
        if self._last is not None:
            await self.wait(self._last)
        await end(self._task)

    def add(self, lines: Iterable[WrittenLine]) -> Stored:
        """Take lines in, and return what is done once they are stored, or left out."""
        for line in lines:
            row = _row(line)
            size = len(row.text) + _ROW_OVERHEAD
            if row.left_out or self._size + size > self._capacity:
                self._leave_out([row])
            else:
                self._rows.append(row)
                self._size += size
        if self._stored is None:
            self._stored = self._last = asyncio.get_running_loop().create_future()
        self._wake.set()
        return self._stored

    async def wait(self, stored: Stored) -> None:
        """Wait until lines are stored, unless the database is behind."""
        if self._behind or stored.done():
            return
        try:
            async with asyncio.timeout(_REPORTS_WAIT):
                await asyncio.shield(stored)
        except TimeoutError:
            self._behind = True

    async def _run(self, pool: Pool) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            rows = [*self._rows, *self._left_out.values()]
            stored, self._stored = self._stored, None
            self._rows, self._left_out, self._size = [], {}, 0
            try:
                async with asyncio.timeout(_WRITE_TIMEOUT), pool.acquire() as connection:
                    await logs.insert(connection, rows)
                self._behind = False
            except DATABASE_FAILED as error:
                log.warning("logs_left_out", lines=len(rows), error=str(error) or type(error).__name__)
                self._leave_out(rows)
                asyncio.get_running_loop().call_later(_TRY_AGAIN_AFTER, self._wake.set)
            if stored is not None:
                stored.set_result(None)

    def _leave_out(self, rows: Iterable[LogRow]) -> None:
        for row in rows:
            entry = self._left_out.get(row.execution_id)
            first = row.written_at if entry is None else entry.written_at
            missing = (row.left_out or 1) + (0 if entry is None else entry.left_out)
            self._left_out[row.execution_id] = LogRow(row.execution_id, first, 0, "", 0, "", "", "", missing)


def _row(written: WrittenLine) -> LogRow:
    line = written.line
    return LogRow(
        execution_id=UUID(bytes=written.token.execution_id),
        written_at=moment(line, "time") or datetime.now(UTC),
        number=min(line.number, _MOST),
        invocation_id=_storable(line.invocation_id),
        attempt=min(line.attempt, _MOST),
        level=_storable(line.level),
        logger=_storable(line.logger),
        text=_storable(line.text),
        left_out=min(line.left_out, _MOST),
    )


def _storable(text: str) -> str:
    """Return a text that Postgres takes: it knows no character zero."""
    return text[:LONGEST_LINE].replace("\0", "\\0")
