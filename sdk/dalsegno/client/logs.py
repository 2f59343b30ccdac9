"""What user code of an execution has written: through `logging`, and to standard output and error."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dalsegno.v1 import log_pb2
from dalsegno.v1.log_service_pb2 import LogServiceListRequest

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach

PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line, or one record of `logging`, whose text may have several.

    Attributes:
        time: When it was written, by the clock of the executor.
        level: The name of the record's level; ``stdout`` or ``stderr`` for what was printed.
        logger: The name of the logger; empty for what was printed.
        invocation_id: The call of a step that wrote it; None for the body of a flow itself.
        attempt: The attempt of the step, from 1; for a body, which run of it: one that waits or is recovered runs
            again, and writes again what it writes.
        text: What was written. Lines above 16 KiB are cut, and say so.
        left_out: How many lines are missing here, as they came faster than they could be kept; 0 for a line.
    """

    time: dt.datetime
    level: str
    logger: str
    invocation_id: str | None
    attempt: int
    text: str
    left_out: int = 0

    def __str__(self) -> str:
        moment = self.time.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        if self.left_out:
            lines = "1 line was" if self.left_out == 1 else f"{self.left_out:,} lines were"
            return f"{moment} … {lines} left out here: they came faster than they could be kept"
        who = self.invocation_id or "(body)"
        again = f" #{self.attempt}" if self.attempt > 1 else ""
        logger = f"{self.logger}: " if self.logger else ""
        return f"{moment} {who}{again} {self.level} {logger}{self.text}"


class Log:
    """The log of an execution, by time; fetched page by page, anew at each iteration. Its text is one line each."""

    def __init__(self, request: LogServiceListRequest, reach: Reach) -> None:
        self._request = request
        self._reach = reach

    def __iter__(self) -> Iterator[LogLine]:
        request = LogServiceListRequest()
        request.CopyFrom(self._request)
        while True:
            page = self._reach.connection.call(lambda stubs: stubs.logs.List, request)
            yield from map(_line, page.lines)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        of = f", {self._request.selector}" if self._request.selector else ""
        return f"<Log of {self._request.execution}{of}>"


def _line(message: log_pb2.LogLine) -> LogLine:
    return LogLine(
        time=message.time.ToDatetime(tzinfo=dt.UTC),
        level=message.level,
        logger=message.logger,
        invocation_id=message.invocation_id or None,
        attempt=message.attempt,
        text=message.text,
        left_out=message.left_out,
    )
