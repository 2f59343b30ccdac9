"""``dalsegno executions retry``, ``resume`` and ``abort``: what has stopped goes on, or ends."""

from __future__ import annotations

from typing import Annotated

import typer

from dalsegno.cli.options import Address, Execution, Limit, Output, Project
from dalsegno.cli.reporting import OutputFormat, Report


def retry(
    execution: Execution,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    limit: Limit = 100,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Re-run, in place, what ended an execution and what never ran."""
    from dalsegno.cli.documents import execution_document
    from dalsegno.cli.exit_codes import ExitCode
    from dalsegno.cli.following import follow
    from dalsegno.cli.outcome import exit_code_for, show_execution
    from dalsegno.cli.session import Session

    report = Report(output)
    with Session(address, project) as session:
        if wait and (why_not := session.bring_code_of(execution)):
            report.remark(f"A worker has to have the code, as this process has not: {why_not}")
        before = session.execution(execution)
        seen = session.last_event(before.exec_id) if wait and before.state.finished else 0
        retried = session.execution(session.client.executions.retry(execution).exec_id)
        if not wait:
            report.document(execution_document(retried))
            report.show(f"{retried.name} runs again: dalsegno executions get {retried.name}")
            if retried.pending_reason:
                report.remark(retried.pending_reason)
            return ExitCode.DONE
        if not report.is_json:
            report.remark(f"{retried.name} runs again")
        ended = follow(session, retried, report, after_event=seen)
        show_execution(session, ended, report, limit=limit)
        return exit_code_for(ended)


def resume(
    execution: Execution,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Put a waiting execution back to work whose waits have been answered."""
    from dalsegno.cli.documents import execution_document
    from dalsegno.cli.session import Session
    from dalsegno.cli.wording import state_text

    report = Report(output)
    with Session(address, project) as session:
        found = session.execution(session.client.executions.resume(execution).exec_id)
        report.document(execution_document(found))
        report.show(f"{found.name} is {state_text(found.state)}.")


def abort(
    execution: Execution,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="NAME", help="Which wait; not needed where one is pending.")
    ] = None,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Abort what an execution waits for, instead of answering: the execution is cancelled."""
    from dalsegno.cli.documents import execution_document
    from dalsegno.cli.session import Session
    from dalsegno.cli.wording import state_text

    report = Report(output)
    with Session(address, project) as session:
        found = session.execution(session.client.executions.abort_wait(execution, wait=wait).exec_id)
        report.document(execution_document(found))
        report.show(f"{found.name} is {state_text(found.state)}.")
