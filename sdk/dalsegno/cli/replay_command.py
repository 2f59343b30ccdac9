"""``dalsegno executions replay``: draws the plan of a replay, or makes it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dalsegno.cli.options import Address, Execution, Lane, Limit, Output, Priority, Project, Timeout
from dalsegno.cli.reporting import OutputFormat, Report


def replay(
    execution: Execution,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="SEL", help="Re-run this step and all that is downstream; may be repeated."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="ID", help="Re-run everything but this step; may be repeated."),
    ] = None,
    skip_successful: Annotated[
        bool, typer.Option("--skip-successful", help="Re-run everything but what succeeded and nothing touches.")
    ] = False,
    rerun_changed_code: Annotated[
        bool, typer.Option("--rerun-changed-code", help="Re-run steps whose code has changed, too.")
    ] = False,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON", help='Inputs that are replaced: {"topic": "…"}.')
    ] = None,
    overrides: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='Outputs that are replaced: {"checkpoint.fit": 3}.'),
    ] = None,
    input_overrides: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='Inputs of single steps that are replaced: {"train": {"rate": 0.1}}.'),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Draw the plan, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the replay to its end.")] = False,
    expect_plan: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Refuse if the plan is not the one of this digest.")
    ] = None,
    timeout: Timeout = None,
    lane: Lane = None,
    priority: Priority = None,
    limit: Limit = 100,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Replay an execution: keep what came before the sign, and re-run only what is affected.

    Values in JSON are plain, or stored ones: {"$artifact": "UUID"}. @FILE reads the JSON of an option from a file.
    """
    from dalsegno.cli.json_arguments import json_object, json_objects
    from dalsegno.cli.replaying import make_replay, show_plan
    from dalsegno.cli.session import Session

    request: dict[str, Any] = {
        "from_": from_,
        "skip": skip,
        "skip_successful_steps": skip_successful,
        "rerun_changed_code": rerun_changed_code,
        "overrides": json_object("--overrides", overrides) or None,
        "step_input_overrides": json_objects("--input-overrides", input_overrides) or None,
        "inputs": json_object("--args", args) or None,
        "expect_plan": expect_plan,
    }
    report = Report(output)
    with Session(address, project) as session:
        if dry_run:
            return show_plan(session, execution, request, report, limit=limit)
        request |= {"timeout": timeout, "lane": lane, "priority": priority}
        return make_replay(session, execution, request, report, wait=wait, limit=limit)
