"""Plans a replay, makes it, and follows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dalsegno.cli.documents import execution_document, plan_document
from dalsegno.cli.exit_codes import ExitCode
from dalsegno.cli.following import follow
from dalsegno.cli.outcome import exit_code_for, show_execution
from dalsegno.cli.plan_table import plan_table
from dalsegno.cli.reporting import Report
from dalsegno.cli.session import Session

Request = Mapping[str, Any]
"""The keyword arguments of ``Client.executions.replay``."""


def show_plan(session: Session, execution: str, request: Request, report: Report, *, limit: int) -> ExitCode:
    """Draw what a replay would do; nothing is created. Code that is here is compared with what was recorded."""
    why_not = session.bring_code_of(execution)
    if why_not and request["rerun_changed_code"]:
        _say_who_needs_code(why_not, report)
    plan = session.plan(execution, limit=limit, **request)
    report.document(plan_document(plan))
    report.show(plan_table(plan))
    return ExitCode.DONE


def make_replay(
    session: Session, execution: str, request: Request, report: Report, *, wait: bool, limit: int
) -> ExitCode:
    """Make a replay, and follow it where that is asked for."""
    if wait and (why_not := session.bring_code_of(execution)):
        _say_who_needs_code(why_not, report)
    created = session.execution(session.client.executions.replay(execution, **request).exec_id)
    if not wait:
        report.document(execution_document(created))
        report.show(f"{created.name} replays {execution}: dalsegno executions get {created.name}")
        for warning in created.warnings:
            report.remark(f"warning: {warning}")
        if created.pending_reason:
            report.remark(created.pending_reason)
        return ExitCode.DONE
    if not report.is_json:
        report.remark(f"{created.name} replays {execution}")
    ended = follow(session, created, report)
    show_execution(session, ended, report, limit=limit)
    return exit_code_for(ended)


def _say_who_needs_code(why_not: str, report: Report) -> None:
    report.remark(f"A worker has to have the code, as this process has not: {why_not}")
