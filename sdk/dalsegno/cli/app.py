"""The command ``dalsegno``: its commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from dalsegno.cli import demo_command, engine_commands, executions_commands, process_commands, run_command
from dalsegno.cli.command_name import PROGRAM
from dalsegno.cli.exit_codes import ExitCode, NobodyReadsError, exit_code_of
from dalsegno.cli.reporting import OutputFormat, document_stream, report_defect, report_error, report_refusal
from dalsegno.errors import DalsegnoError

app = typer.Typer(
    name=PROGRAM,
    help="Records executions of Python flows and pipelines, and replays them from any sign.",
    epilog="Exit codes: 0 done, 1 the execution failed, 2 the request was refused, 3 the backend is unreachable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from dalsegno.local.state import installed_version

        typer.echo(f"{PROGRAM} {installed_version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Records executions of Python flows and pipelines, and replays them from any sign."""


app.command("demo")(demo_command.demo)
app.command("run")(run_command.run_flow)
app.add_typer(executions_commands.app, name="executions")
app.command("up")(engine_commands.up)
app.command("down")(engine_commands.down)
app.command("status")(engine_commands.status)
app.command("planner")(process_commands.planner)
app.command("worker")(process_commands.worker)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing is raised."""
    output = output_of(arguments)
    try:
        return _finished(app(args=list(arguments), prog_name=PROGRAM, standalone_mode=False))
    except TyperException as refusal:
        return _refused(refusal, output)
    except DalsegnoError as error:
        report_error(error, output)
        return exit_code_of(error)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return ExitCode.INTERRUPTED
    except NobodyReadsError:
        # The interpreter flushes what is open once more at its end, and would complain of it.
        for stream in (document_stream(), sys.stdout):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return ExitCode.NOBODY_READS
    except Exception as error:  # noqa: BLE001 - the last who can keep the promise of one document on standard output
        report_defect(error, output)
        return ExitCode.DEFECT


def output_of(arguments: Sequence[str]) -> OutputFormat:
    """Return what ``--output`` says, read without the parser: its own errors follow it too."""
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        if (argument in ("--output", "-o") and following == OutputFormat.JSON) or argument in (
            f"--output={OutputFormat.JSON}",
            f"-o{OutputFormat.JSON}",
        ):
            return OutputFormat.JSON
    return OutputFormat.TEXT


def _finished(result: object) -> int:
    sys.stdout.flush()
    return result if isinstance(result, int) else ExitCode.DONE


def _refused(refusal: TyperException, output: OutputFormat) -> int:
    message = refusal.format_message()
    if not message:  # no command was given, and the help was shown
        return ExitCode.USAGE
    context = getattr(refusal, "ctx", None)
    usage = f"{context.command_path} --help shows how it is used." if context is not None else ""
    report_refusal(message, usage, output)
    return ExitCode.USAGE
