"""The reports that a planner has not acknowledged, and those of them that are not sent on the present stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from dalsegno.v1.executor_service_pb2 import ExecutorServiceWorkRequest, Report
from dalsegno_executor.events import RunnerId
from dalsegno_executor.tokens import TaskKey

REPORTS_IN_MESSAGE = 512
BYTES_IN_MESSAGE = 1 << 20
"""A message of reports stays below this, unless one report alone is above it; servers take 4 MiB by default."""


@dataclass(slots=True)
class OpenReport:
    """A report that is not acknowledged.

    Attributes:
        runner_report_id: What the runner calls it; 0 where it needs no answer.
        ends: Whether its task ends with it.
        replaced: Whether it stands for another one, which was rejected.
    """

    report: Report
    key: TaskKey
    runner: RunnerId
    runner_report_id: int
    ends: bool
    live: bool
    replaced: bool = False


class OpenReports:
    """Numbers reports and keeps them until they are acknowledged; those of live tasks go first, and by themselves."""

    def __init__(self) -> None:
        self.last_id = 0
        self._open: dict[int, OpenReport] = {}
        self._live: deque[int] = deque()
        self._bulk: deque[int] = deque()

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, opened: OpenReport) -> None:
        """Give a report the next number, and have it sent."""
        self.last_id += 1
        opened.report.report_id = self.last_id
        self._open[self.last_id] = opened
        self._unsent(opened).append(self.last_id)

    def get(self, report_id: int) -> OpenReport | None:
        """Return the report of this number, where it is open."""
        return self._open.get(report_id)

    def close(self, report_id: int) -> None:
        """Keep a report no longer."""
        del self._open[report_id]

    @property
    def has_unsent(self) -> bool:
        """Whether there are reports that are not sent."""
        return bool(self._live or self._bulk)

    def begin_anew(self) -> None:
        """Have all of them sent on another stream."""
        self._live.clear()
        self._bulk.clear()
        for report_id, opened in self._open.items():
            self._unsent(opened).append(report_id)

    def take(self, last: int) -> ExecutorServiceWorkRequest | None:
        """Return a message of those to be sent up to a number, if there are any."""
        return self._message(self._live, last) or self._message(self._bulk, last)

    def _unsent(self, opened: OpenReport) -> deque[int]:
        return self._live if opened.live else self._bulk

    def _message(self, unsent: deque[int], last: int) -> ExecutorServiceWorkRequest | None:
        request = ExecutorServiceWorkRequest()
        reports, size = request.reports.reports, 0
        while unsent and unsent[0] <= last and len(reports) < REPORTS_IN_MESSAGE:
            opened = self._open.get(unsent[0])
            if opened is not None:
                size += opened.report.ByteSize()
                if size > BYTES_IN_MESSAGE and reports:
                    break
                reports.append(opened.report)
            unsent.popleft()
        return request if reports else None
