"""``dalsegno up``, ``down`` and ``status``: the embedded engine."""

from __future__ import annotations

from typing import Annotated

import typer

from dalsegno.cli.options import Output
from dalsegno.cli.reporting import OutputFormat, Report


def up(
    background: Annotated[
        bool, typer.Option("--background", help="Return once it serves; dalsegno down stops it.")
    ] = False,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Start the embedded engine, in the foreground until Ctrl-C.

    Nobody has to: whatever needs it starts it, and it stops when it was idle for half an hour.
    """
    from dalsegno import local

    report = Report(output)

    def announce(address: str) -> None:
        report.document({"address": address})
        report.show(f"The engine serves at {address}")
        if not background:
            report.remark("Ctrl-C stops it.")

    local.up(foreground=not background, announce=announce)


def down(output: Output = OutputFormat.TEXT) -> None:
    """Stop the embedded engine, whoever uses it. What it recorded stays."""
    from dalsegno import local

    report = Report(output)
    stopped = local.down()
    report.document({"stopped": stopped})
    report.show("The engine has stopped." if stopped else "No engine was running.")


def status(output: Output = OutputFormat.TEXT) -> None:
    """Say whether the embedded engine runs, and where it keeps things."""
    from dalsegno import local

    report = Report(output)
    engine = local.status()
    report.document(
        {
            "running": engine.running,
            "home": str(engine.home),
            "pid": engine.pid,
            "address": engine.address,
            "database_url": engine.database_url,
            "version": engine.version,
        }
    )
    if engine.running:
        report.show(f"The engine runs: process {engine.pid}, serving {engine.address}")
    else:
        report.show("The engine does not run; it starts when something needs it.")
    report.show(f"Its folder is {engine.home}")
