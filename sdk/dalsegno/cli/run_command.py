"""``dalsegno run``: starts a flow or pipeline of the user's code, and follows it."""

from __future__ import annotations

from typing import Annotated

import typer

from dalsegno.cli.options import Address, Lane, Limit, Output, Priority, Project, Timeout
from dalsegno.cli.reporting import OutputFormat, Report
from dalsegno.lanes import checked_urgency
from dalsegno.timeouts import checked_timeout


def run_flow(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:FLOW", help="A flow or pipeline: package.module:name, or file.py:name.")
    ],
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON", help='Its inputs: {"topic": "…"}; @FILE reads a file.')
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The run's name; chosen where none is given.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end, or return at once.")] = True,
    timeout: Timeout = None,
    lane: Lane = None,
    priority: Priority = None,
    limit: Limit = 100,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Run a flow or pipeline."""
    from dalsegno.cli.json_arguments import json_object
    from dalsegno.cli.loading import load_runnable
    from dalsegno.cli.running import start_and_follow
    from dalsegno.cli.session import Session

    arguments = json_object("--args", args)
    runnable = load_runnable(target)
    with Session(address, project) as session:
        return start_and_follow(
            session,
            runnable,
            arguments,
            Report(output),
            name=name,
            timeout=checked_timeout("the run", timeout),
            urgency=checked_urgency("the run", lane, priority),
            wait=wait,
            limit=limit,
        )
