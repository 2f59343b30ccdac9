"""``dalsegno executions import`` and ``export``: executions as records in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dalsegno.cli.options import Address, Execution, Output, Project
from dalsegno.cli.reporting import OutputFormat, Report, document_stream

STANDARD_INPUT = "-"


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The record: a JSON document, or JSON Lines; - reads standard input.")
    ],
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Import an execution that ran elsewhere; it can be replayed like any other."""
    from dalsegno.cli.documents import execution_document
    from dalsegno.cli.session import Session
    from dalsegno.cli.wording import state_text
    from dalsegno.errors import UsageError

    report = Report(output)
    with Session(address, project) as session:
        path = Path("/dev/stdin" if file == STANDARD_INPUT else file)
        try:
            imported = session.client.executions.import_(path)
        except OSError as error:
            message = f"cannot read {file}: {error.strerror or error}"
            raise UsageError(message, reason="NO_SUCH_FILE", fields={"file": file}) from error
        found = session.execution(imported.exec_id)
        report.document(execution_document(found))
        report.show(f"{found.name} is imported, {state_text(found.state)}: dalsegno executions get {found.name}")


def export(
    execution: Execution,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Write to this file, as JSON Lines where it ends in .jsonl."),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Put large values into the record, for a planner with another store.")
    ] = False,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Export an execution that has ended, as one JSON document on standard output or into a file."""
    from dalsegno.cli.session import Session
    from dalsegno.client.importing import exported_items, write_record
    from dalsegno.errors import UsageError

    report = Report(output)
    with Session(address, project) as session:
        if file is None:
            write_record(document_stream(), exported_items(session.client.reach, execution, embed=embed), lines=False)
            return
        try:
            path = session.client.executions.export(execution, file, embed=embed)
        except OSError as error:
            message = f"cannot write {file}: {error.strerror or error}"
            raise UsageError(message, reason="CANNOT_WRITE", fields={"file": str(file)}) from error
        report.document({"file": str(path)})
        report.show(f"Written to {path}")
