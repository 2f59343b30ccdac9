"""``dalsegno executions checkpoint``: one call, with what it returned and how it failed before."""

from __future__ import annotations

from typing import Annotated

import typer

from dalsegno.cli.options import Address, Execution, Output, Project
from dalsegno.cli.reporting import OutputFormat, Report


def checkpoint(
    execution: Execution,
    selector: Annotated[
        str,
        typer.Argument(metavar="SEL", help="A call: its step, invocation ID or call ID; all:NAME for all of a step."),
    ],
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show a call of a step: its outputs with their artifact IDs, and each attempt that failed."""
    from dalsegno.cli.call_drawing import call_details
    from dalsegno.cli.documents import call_document
    from dalsegno.cli.session import Session

    report = Report(output)
    with Session(address, project) as session:
        found = session.execution(execution)
        calls = session.calls(found.exec_id, selector)
        report.document(
            {"exec_id": found.exec_id, "name": found.name, "checkpoints": [call_document(call) for call in calls]}
        )
        for place, call in enumerate(calls):
            report.show(*([""] if place else []), call_details(call))
