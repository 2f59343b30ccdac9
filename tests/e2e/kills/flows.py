"""Steps that tell a journal that they run, and steps that meet the test; in flows and in pipelines."""

from __future__ import annotations

import os
from pathlib import Path

from dalsegno import flow, pipeline, step

MEETINGS = ("direct", "submitted", "pipeline")


@step
def note(folder: str, label: str, after: int) -> int:
    """Write down who runs it."""
    journal = os.open(Path(folder) / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{label} {os.getppid()}\n".encode())  # one write, so that lines stay whole
    os.close(journal)
    return after + 1


@step
def meet(folder: str, label: str, after: int) -> int:
    """Say that it runs, and where; go on when told so."""
    note.function(folder, label, after)
    (Path(folder) / f"{label}.started").write_text(f"{os.getppid()}\n")  # a FIFO: waits for its reader
    (Path(folder) / f"{label}.go").read_text()  # a FIFO: waits for its writer
    return after + 1


@flow
def meeting_directly(folder: str) -> int:
    before = note(folder, "direct before", 0)
    return note(folder, "direct after", meet(folder, "direct", before))


@flow
def meeting_elsewhere(folder: str) -> int:
    before = note(folder, "submitted before", 0)
    met = meet.submit(folder, "submitted", before).result()
    return note(folder, "submitted after", met)


@pipeline
def meeting_in_pipeline(folder: str) -> int:
    before = note(folder, "pipeline before", 0)
    return note(folder, "pipeline after", meet(folder, "pipeline", before))


@flow
def busy_flow(folder: str, run: str, length: int) -> int:
    value = 0
    for number in range(length):
        value = note(folder, f"{run}.{number}", value)
    return value


@pipeline
def busy_pipeline(folder: str, run: str, length: int) -> int:
    value = 0
    for number in range(length):
        value = note(folder, f"{run}.{number}", value)
        note(folder, f"{run}.{number}.beside", number)
    return value
