"""Starts a flow or pipeline from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from dalsegno.cli.documents import execution_document
from dalsegno.cli.exit_codes import ExitCode
from dalsegno.cli.following import follow
from dalsegno.cli.loading import Runnable
from dalsegno.cli.outcome import exit_code_for, show_execution
from dalsegno.cli.reporting import Report
from dalsegno.cli.session import Session
from dalsegno.decorators import Flow, Pipeline
from dalsegno.lanes import Urgency


def start_and_follow(
    session: Session,
    runnable: Runnable,
    arguments: Mapping[str, object],
    report: Report,
    *,
    name: str | None,
    timeout: float | None,
    urgency: Urgency,
    wait: bool,
    limit: int,
) -> ExitCode:
    """Start an execution, and follow it to its end where that is asked for."""
    started = session.execution(_start(session, runnable, arguments, name=name, timeout=timeout, urgency=urgency))
    if not wait:
        report.document(execution_document(started))
        report.show(f"{started.name} is started: dalsegno executions get {started.name}")
        if started.pending_reason:
            report.remark(started.pending_reason)
        return ExitCode.DONE
    if not report.is_json:
        report.remark(f"{started.name} is started")
    ended = follow(session, started, report)
    show_execution(session, ended, report, limit=limit)
    return exit_code_for(ended)


def _start(session: Session, runnable: Runnable, arguments: Mapping[str, object], **options: Any) -> str:
    from dalsegno.client.starts import start_flow, start_pipeline

    match runnable:
        case Flow():
            return start_flow(runnable, (), arguments, session.client, **options).exec_id
        case Pipeline():
            return start_pipeline(runnable, (), arguments, session.client.reach, **options).exec_id
    assert_never(runnable)
