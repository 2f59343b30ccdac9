"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from dalsegno.cli.reporting import OutputFormat
from dalsegno.lanes import Lane as Lanes

Output = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", help="Text for people, or one JSON document on standard output."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="DALSEGNO_ADDRESS",
        metavar="ADDRESS",
        help="The planner, host:port or unix:/path. Without one, the embedded engine, started on first use.",
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        envvar="DALSEGNO_PROJECT",
        metavar="NAME",
        help="The project that names live in. Default: the nearest pyproject.toml's or git root's folder name.",
    ),
]
Execution = Annotated[
    str, typer.Argument(metavar="ID", help="An execution: its run name, its ID, or a unique prefix or suffix.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="How long the execution may take, waits included."),
]
Lane = Annotated[
    Lanes | None,
    typer.Option("--lane", help="Work of live executions goes before that of bulk ones. Default: live, unless huge."),
]
Priority = Annotated[
    int | None,
    typer.Option("--priority", metavar="NUMBER", help="-100 to 100: within a lane the higher one goes first."),
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many are shown at most.")]
