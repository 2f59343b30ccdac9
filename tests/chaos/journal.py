"""The history that steps write outside of the system: one file for each process, one line for each event."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER_SETTING = "CHAOS_JOURNAL"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a step's function.

    Attributes:
        execution, number, epoch: The token that it ran with.
        invocation_id: Of the call.
        attempt: The number of the attempt, as the executor knows it.
        salt: Tells the calls of a program apart.
        inputs: Digest of what it was given.
        started: Seconds since the epoch.
        executor: PID of the executor.
        finished: Seconds since the epoch; None where it did not come to its end.
        output: Digest of what it returned; None where it raised.
    """

    execution: str
    number: int
    epoch: int
    invocation_id: str
    attempt: int
    salt: str
    inputs: str
    started: float
    executor: int
    finished: float | None = None
    output: str | None = None


def write(line: dict[str, object]) -> None:
    """Add a line to this process's file, in one write, so that a kill leaves it whole or out."""
    path = Path(os.environ[FOLDER_SETTING]) / f"{os.getpid()}.jsonl"
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(journal, json.dumps(line).encode() + b"\n")
    finally:
        os.close(journal)


def read(folder: Path) -> Iterator[Run]:
    """Yield all runs, in no order."""
    for path in folder.glob("*.jsonl"):
        ends: dict[str, dict[str, Any]] = {}
        begun: list[dict[str, Any]] = []
        for text in path.read_text().splitlines():
            line = json.loads(text)
            if "finished" in line:
                ends[line.pop("run")] = line
            else:
                begun.append(line)
        for line in begun:
            run = line.pop("run")
            yield Run(**line, **ends.get(run, {}))
