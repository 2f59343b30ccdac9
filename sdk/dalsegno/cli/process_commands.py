"""``dalsegno planner`` and ``dalsegno worker``: this process becomes the one that is asked for.

It is replaced, not wrapped, so that signals and exit codes are the planner's and the executor's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from dalsegno.cli.options import Address, Output, Project
from dalsegno.cli.reporting import OutputFormat, Report

PLANNER = "dalsegno_planner"
EXECUTOR = "dalsegno_executor"


class Isolation(StrEnum):
    """Where the steps of a worker run."""

    PROCESS = "process"
    THREAD = "thread"


def planner(
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="host:port, [ipv6]:port or unix:/path. Default: 127.0.0.1:7317."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Postgres 15 or later: postgresql://user@host:port/database."),
    ] = None,
    object_store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="For values above 64 KiB: file:///…, s3://…, gs://…, az://…."),
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Run one planner on a Postgres of yours.

    Every setting is an environment variable DALSEGNO_…; the options here set three of them.
    """
    given = {
        "DALSEGNO_LISTEN": listen,
        "DALSEGNO_DATABASE_URL": database_url,
        "DALSEGNO_OBJECT_STORE": object_store,
    }
    _become(PLANNER, [], {name: value for name, value in given.items() if value is not None}, output)


def worker(
    module_or_file: Annotated[str, typer.Argument(metavar="MODULE_OR_FILE", help="What defines the flows and steps.")],
    address: Address = None,
    project: Project = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Runner processes. Default: one a core.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Tasks that one runner takes at a time.")] = None,
    bodies: Annotated[
        int | None, typer.Option(min=1, help="Flow bodies that all runners run at a time. Default: 100.")
    ] = None,
    isolation: Annotated[
        Isolation | None, typer.Option(help="Run steps in processes of their own, or in threads of one.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="How long a drain may take. Default: 30.")
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Run one executor for the code of a module."""
    from dalsegno.cli.session import engine_address_for_life

    given = {
        "--address": address or engine_address_for_life(),
        "--project": project,
        "--processes": processes,
        "--slots": slots,
        "--bodies": bodies,
        "--isolation": isolation,
        "--grace": grace,
    }
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    _become(EXECUTOR, [module_or_file, *options], {}, output)


def _become(module: str, arguments: Sequence[str], environment: Mapping[str, str], output: OutputFormat) -> None:
    command = [sys.executable, "-m", module, *arguments]
    _require(module)
    if output is OutputFormat.JSON:
        # Whatever the process says itself goes to standard error, so that this stays the only document.
        Report(output).document({"pid": os.getpid(), "command": command})
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, {**os.environ, **environment})  # noqa: S606 - our own module


def _require(module: str) -> None:
    from importlib.util import find_spec

    from dalsegno.errors import UsageError

    if find_spec(module) is None:
        extra = module.removeprefix("dalsegno_")
        raise UsageError(
            f"this installation has no {extra}; install it: pip install 'dalsegno[{extra}]'",
            reason="NOT_INSTALLED",
            fields={"extra": extra},
        )
