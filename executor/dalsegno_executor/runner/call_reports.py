"""How a body reports its calls: that one begins, what came of it, and what was yielded meanwhile."""

from __future__ import annotations

from typing import Protocol

from dalsegno.v1.executor_service_pb2 import Report
from dalsegno_executor.runner.calls import MadeCall
from dalsegno_executor.runner.completions import Completions
from dalsegno_executor.runner.inbox import Inbox


class Reporting(Protocol):
    """Where the reports of a body go."""

    def answered_to(self, inbox: Inbox) -> int:
        """Return an ID for a report whose fate is to come to an inbox."""
        ...

    def report(self, report: Report) -> None:
        """Send a report as it is now; it may be changed and sent again."""
        ...


class CallReports:
    """The reports of one body's calls.

    Args:
        reporting: Takes them.
        inbox: Gets the answers.
        completions: What is yielded; it is reported with the next call.
    """

    def __init__(self, reporting: Reporting, inbox: Inbox, completions: Completions) -> None:
        self._reporting = reporting
        self._inbox = inbox
        self._completions = completions

    def begin(self, made: MadeCall) -> None:
        """Tell the stream process alone that a call begins; what was yielded is in it, and remains to be reported."""
        made.message.yields.extend(self._completions.unrecorded())
        self._reporting.report(made.report)

    def send(self, made: MadeCall) -> None:
        """Report a call and go on; a refusal ends the body later."""
        self._send(made, self._reporting.answered_to(self._inbox))

    def send_durably(self, made: MadeCall) -> None:
        """Report a call, and wait until that is durable."""
        self._inbox.wait_durable(self.send_expected(made))

    def send_expected(self, made: MadeCall) -> int:
        """Report a call, and return the ID of the report, whose answer will be waited for."""
        report_id = self._reporting.answered_to(self._inbox)
        self._inbox.expect(report_id)
        self._send(made, report_id)
        return report_id

    def _send(self, made: MadeCall, report_id: int) -> None:
        made.report.report_id = report_id
        made.message.ClearField("yields")
        made.message.yields.extend(self._completions.unrecorded())
        self._completions.reported()
        self._reporting.report(made.report)
