"""``dalsegno executions logs``: what user code has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dalsegno.cli.options import Address, Execution, Output, Project
from dalsegno.cli.reporting import OutputFormat, Report

if TYPE_CHECKING:
    from dalsegno.client.logs import LogLine


def logs(
    execution: Execution,
    invocation: Annotated[
        str | None,
        typer.Option("--invocation", metavar="SEL", help="Only lines of this call of a step; all:NAME for all of it."),
    ] = None,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what the code of an execution has logged and printed."""
    from dalsegno.cli.session import Session

    report = Report(output)
    with Session(address, project) as session:
        lines = session.client.executions.logs(execution, invocation)
        if report.is_json:
            found = session.execution(execution)
            document = {"exec_id": found.exec_id, "name": found.name, "lines": list(map(_line_document, lines))}
            report.document(document)
            return
        for line in lines:
            # As it is: nothing in it is ours to break or to colour.
            report.console.out(str(line), highlight=False)


def _line_document(line: LogLine) -> dict[str, object]:
    return {
        "time": line.time.isoformat(),
        "level": line.level,
        "logger": line.logger,
        "invocation_id": line.invocation_id,
        "attempt": line.attempt,
        "text": line.text,
        "left_out": line.left_out,
    }
