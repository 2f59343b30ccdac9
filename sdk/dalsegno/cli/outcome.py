"""Shows an execution at the end of a command, and says with which exit code it ends."""

from __future__ import annotations

from dataclasses import replace

from dalsegno.cli.documents import details_document
from dalsegno.cli.exit_codes import ExitCode
from dalsegno.cli.reporting import Report
from dalsegno.cli.session import Session
from dalsegno.cli.tables import execution_details, waits_text
from dalsegno.cli.views import ExecutionView
from dalsegno.errors import NotFoundError
from dalsegno.states import ExecutionState

STEPS_SHOWN = 100


def show_execution(session: Session, execution: ExecutionView, report: Report, *, limit: int = STEPS_SHOWN) -> None:
    """Show an execution with its steps and the questions that it asks."""
    steps = session.steps(execution.exec_id, limit=limit)
    waits = session.pending_waits(execution.exec_id) if execution.state is ExecutionState.WAITING else []
    report.document(details_document(execution, steps, waits))
    hidden = max(0, execution.step_count - len(steps))
    report.show(execution_details(_with_source(session, execution), steps, hidden))
    if waits:
        report.show("", waits_text(waits), f"Answer: dalsegno executions input {execution.name} --interactive")


def _with_source(session: Session, execution: ExecutionView) -> ExecutionView:
    if execution.original_exec_id is None:
        return execution
    try:
        source = session.execution_message(execution.original_exec_id)
    except NotFoundError:  # it was deleted
        return execution
    return replace(execution, original_name=source.name)


def exit_code_for(execution: ExecutionView) -> ExitCode:
    """Return the exit code of a command that followed an execution to its end."""
    ended_badly = execution.state in (ExecutionState.FAILED, ExecutionState.CANCELLED)
    return ExitCode.EXECUTION_FAILED if ended_badly else ExitCode.DONE
