"""``dalsegno executions …``: what is recorded, and what is done with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from dalsegno.cli.checkpoint_command import checkpoint
from dalsegno.cli.lifecycle_commands import abort, resume, retry
from dalsegno.cli.log_commands import logs
from dalsegno.cli.options import Address, Execution, Limit, Output, Project
from dalsegno.cli.record_commands import export, import_
from dalsegno.cli.replay_command import replay
from dalsegno.cli.reporting import OutputFormat, Report
from dalsegno.states import ExecutionState

app = typer.Typer(
    help="List, show, replay, answer and cancel executions.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)

_STATES = ", ".join(ExecutionState)


@app.command("list")
def list_executions(
    flow: Annotated[
        str | None, typer.Option("--flow", metavar="NAME", help="Only those of this flow or pipeline.")
    ] = None,
    state: Annotated[
        list[ExecutionState] | None,
        typer.Option("--state", metavar="STATE", help=f"Only those in this state: {_STATES}; may be repeated."),
    ] = None,
    replays_of: Annotated[
        str | None, typer.Option("--replays-of", metavar="ID", help="Only replays of this execution.")
    ] = None,
    limit: Limit = 20,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """List executions, the newest first."""
    from dalsegno.cli.documents import execution_document
    from dalsegno.cli.session import Session
    from dalsegno.cli.tables import executions_table

    report = Report(output)
    with Session(address, project) as session:
        found = session.executions(limit=limit, flow=flow, states=state or (), replays_of=replays_of)
        report.document({"executions": [execution_document(one) for one in found]})
        some = bool(flow or state or replays_of)
        report.show(executions_table(found, datetime.now(UTC), session.project, some=some))


@app.command("get")
def get(
    execution: Execution,
    limit: Limit = 100,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show an execution: its inputs, result or failure, its steps and open questions."""
    from dalsegno.cli.outcome import show_execution
    from dalsegno.cli.session import Session

    report = Report(output)
    with Session(address, project) as session:
        show_execution(session, session.execution(execution), report, limit=limit)


@app.command("graph")
def graph(
    execution: Execution,
    limit: Limit = 100,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Draw the graph of an execution: each step with those that it takes something from."""
    from dalsegno.cli.documents import graph_document
    from dalsegno.cli.session import Session
    from dalsegno.cli.tables import graph_lines

    report = Report(output)
    with Session(address, project) as session:
        found = session.execution(execution)
        steps = session.steps(found.exec_id, limit=limit)
        report.document(graph_document(found, steps))
        report.show(graph_lines(found, steps, found.step_count - len(steps)))


app.command("checkpoint")(checkpoint)
app.command("replay")(replay)
app.command("retry")(retry)
app.command("resume")(resume)
app.command("abort")(abort)
app.command("logs")(logs)
app.command("import")(import_)
app.command("export")(export)


@app.command("input")
def answer(
    execution: Execution,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="NAME", help="Which wait; not needed where one is pending.")
    ] = None,
    value: Annotated[
        str | None, typer.Option("--value", metavar="JSON", help="The answer; @FILE reads a file.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Show the question, ask, and ask again on a bad answer.")
    ] = False,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Answer what an execution waits for; it then goes on by itself."""
    from dalsegno.cli.input_command import answer_interactively, answer_with
    from dalsegno.cli.session import Session
    from dalsegno.errors import UsageError

    if interactive == (value is not None):
        raise UsageError("give the answer with --value JSON, or be asked with --interactive", reason="NO_ANSWER")
    report = Report(output)
    with Session(address, project) as session:
        if value is None:
            answer_interactively(session, execution, wait, report)
        else:
            answer_with(session, execution, wait, value, report)


@app.command("cancel")
def cancel(
    execution: Execution,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the execution.")] = "",
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Stop an execution, and free what it holds."""
    from dalsegno.cli.documents import execution_document
    from dalsegno.cli.session import Session
    from dalsegno.cli.wording import state_text

    report = Report(output)
    with Session(address, project) as session:
        found = session.cancel(execution, reason)
        report.document(execution_document(found))
        report.show(f"{found.name} is {state_text(found.state)}.")


@app.command("delete")
def delete(
    execution: Execution,
    address: Address = None,
    project: Project = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Delete an execution that has ended, unless replays still read from it."""
    from dalsegno.cli.session import Session

    report = Report(output)
    with Session(address, project) as session:
        found = session.execution(execution)
        session.client.executions.delete(found.exec_id)
        report.document({"exec_id": found.exec_id, "name": found.name, "deleted": True})
        report.show(f"{found.name} is deleted.")
