"""Follows an execution to its end: a live line on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from dalsegno.cli.reporting import Report
from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView, StepView
from dalsegno.cli.wording import count_text, seconds_text, state_text
from dalsegno.states import ExecutionState, InvocationState

if TYPE_CHECKING:
    from rich.spinner import Spinner

_NAMED = 3
"""Running steps that the live line names."""
_LINES = 200
"""Steps that get a line of their own; an execution of a million would bury everything else."""


def follow(session: Session, execution: ExecutionView, report: Report, *, after_event: int = 0) -> ExecutionView:
    """Return an execution once it has ended, and show meanwhile how it goes on.

    Args:
        session: The planner.
        execution: What is followed.
        report: Where it is shown.
        after_event: What happened up to this event is not shown: it was before a retry.
    """
    try:
        with shown(report) as line:
            _watch(session, Progress(execution), execution, report, line, after_event)
    except KeyboardInterrupt:
        report.remark(f"{execution.name} is not cancelled by this: dalsegno executions cancel {execution.name}")
        if session.runs_code_here():
            report.remark("This process ran its code, and ends: it goes on where a worker has it.")
        raise
    return session.execution(execution.exec_id)


def _watch(
    session: Session,
    progress: Progress,
    execution: ExecutionView,
    report: Report,
    line: Spinner | None,
    after_event: int,
) -> None:
    for event in session.watch(execution.exec_id, after_event=after_event):
        said = progress.take(_as_seen_here(session, event))
        if line is not None:
            line.update(text=Text(progress.line()))
        elif said and not report.is_json:
            report.remark(said)
        if progress.has_begun_to_wait():
            report.remark(f"It waits for an answer: dalsegno executions input {execution.name} --interactive")


def _as_seen_here(session: Session, event: ExecutionView | StepView) -> ExecutionView | StepView:
    """Return an event without the advice to start a worker, where this process is one that is about to be heard of."""
    if isinstance(event, ExecutionView) and event.pending_reason and session.runs_code_here():
        return replace(event, pending_reason=None)
    return event


@contextmanager
def shown(report: Report) -> Iterator[Spinner | None]:
    """Show a live line where somebody watches; its text is to be updated.

    What user code prints meanwhile appears above it, and where it went without it: a file gets it still.
    """
    if report.is_json or not report.remarks.is_terminal:
        yield None
        return
    from rich.live import Live
    from rich.spinner import Spinner

    line = Spinner("dots", text="waiting for an executor", style="status.spinner")
    with Live(line, console=report.remarks, transient=True, redirect_stdout=sys.stdout.isatty()):
        yield line


class Progress:
    """How far an execution is, from the events of its watch."""

    def __init__(self, execution: ExecutionView) -> None:
        self._execution = execution
        self._running: dict[str, str] = {}
        self._done = 0
        self._lines = 0
        self._waiting_said = True

    def take(self, event: ExecutionView | StepView) -> str:
        """Take an event; return a line on it, empty where it is not worth one."""
        if isinstance(event, ExecutionView):
            return self._take_execution(event)
        return self._take_step(event)

    def line(self) -> str:
        """Return the state of affairs in a line."""
        if self._execution.pending_reason:
            return self._execution.pending_reason
        named = ", ".join(f"{name} {how_far}".rstrip() for name, how_far in list(self._running.items())[:_NAMED])
        more = len(self._running) - _NAMED
        now = f": {named}" + (f" and {more} more" if more > 0 else "") if named else ""
        done = f", {count_text(self._done, 'step')} done" if self._done else ""
        return f"{self._execution.name} {state_text(self._execution.state)}{now}{done}"

    def has_begun_to_wait(self) -> bool:
        """Whether it asks something since the last time that it was asked about."""
        begun = self._execution.state is ExecutionState.WAITING and not self._waiting_said
        self._waiting_said = self._waiting_said or begun
        return begun

    def _take_execution(self, event: ExecutionView) -> str:
        before, self._execution = self._execution, replace(event, name=event.name or self._execution.name)
        if event.state is not before.state:
            self._waiting_said = event.state is not ExecutionState.WAITING
        if event.pending_reason and event.pending_reason != before.pending_reason:
            return event.pending_reason
        return ""

    def _take_step(self, event: StepView) -> str:
        if not event.state.finished:
            if event.state is not InvocationState.RUNNING:
                return ""
            how_far = "" if event.progress is None else str(event.progress)
            said, self._running[event.invocation_id] = self._running.get(event.invocation_id, ""), how_far
            return f"{event.invocation_id} {state_text(event.state)}: {how_far}" if how_far not in ("", said) else ""
        self._running.pop(event.invocation_id, None)
        self._done += 1
        self._lines += 1
        if self._lines == _LINES:
            return f"… further steps are not listed; dalsegno executions get {self._execution.name} lists them"
        if self._lines > _LINES:
            return ""
        took = f" in {seconds_text(event.seconds)}" if event.seconds is not None else ""
        return f"{event.invocation_id} {state_text(event.state)}{took}"
