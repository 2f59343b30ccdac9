"""``dalsegno executions input``: answers a wait, with a value or by asking."""

from __future__ import annotations

from dalsegno.cli.answering import ask_until_accepted
from dalsegno.cli.documents import execution_document, wait_document
from dalsegno.cli.json_arguments import json_value
from dalsegno.cli.reporting import Report
from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView, WaitView
from dalsegno.errors import StateError, UsageError

Answered = tuple[WaitView, ExecutionView]


def answer_with(session: Session, execution: str, wait: str | None, value: str, report: Report) -> None:
    """Answer a wait with JSON from the command line."""
    _accepted(session.answer(execution, wait, json_value("--value", value)), report)


def answer_interactively(session: Session, execution: str, wait: str | None, report: Report) -> None:
    """Show a question, ask for an answer, and ask again until one is accepted.

    Raises:
        StateError: If nothing is asked, or several things are and none is named.
        UsageError: If the input ends before there is an answer.
    """
    chosen = _chosen(session.pending_waits(execution), execution, wait)

    def read(prompt: str) -> str:
        # To standard error, like everything that is not the result.
        report.remarks.print(prompt, end="", markup=False)
        return input()

    try:
        answered = ask_until_accepted(
            chosen,
            show=report.remarks.print,
            read=read,
            send=lambda answer: session.answer(execution, chosen.name, answer),
        )
    except EOFError:
        report.remarks.print()  # ends the line of the prompt
        raise UsageError(
            f"standard input ended before {chosen.name} was answered; it stays open, and --value JSON answers it too",
            reason="NO_ANSWER",
            fields={"wait": chosen.name},
        ) from None
    _accepted(answered, report)


def _chosen(pending: list[WaitView], execution: str, wait: str | None) -> WaitView:
    names = ", ".join(repr(one.name) for one in pending)
    if not pending:
        raise StateError(f"{execution} waits for no answer", reason="NO_PENDING_WAIT", fields={"execution": execution})
    if wait is None:
        if len(pending) > 1:
            raise StateError(
                f"{execution} waits for several answers; say which with --wait: {names}", reason="AMBIGUOUS_WAIT"
            )
        return pending[0]
    for one in pending:
        if one.name == wait:
            return one
    raise StateError(f"{execution} has no pending wait {wait!r}; pending: {names}", reason="NO_PENDING_WAIT")


def _accepted(answered: Answered, report: Report) -> None:
    wait, execution = answered
    report.document({"wait": wait_document(wait), "execution": execution_document(execution)})
    report.show(f"{execution.name}: {wait.name} is answered.")
    if execution.pending_reason:
        report.remark(execution.pending_reason)
