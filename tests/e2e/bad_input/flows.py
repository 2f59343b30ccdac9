"""Flows and pipelines whose inputs, outputs and results may be more than the planner takes, or nothing it knows."""

from __future__ import annotations

from pathlib import Path

from dalsegno import flow, pipeline, step


class Opaque:
    """A value that no codec takes."""


@step
def research(topic: str, depth: int = 1) -> str:
    return f"notes on {topic}" * depth


@step
def draft(notes: str) -> str:
    return notes.upper()


@step
def make(kind: str, size: int) -> object:
    return made(kind, size)


@step
def take(value: object) -> int:
    return 1


@step
def meet(folder: str, before: int) -> int:
    """Say that it runs; go on when told so."""
    with (Path(folder) / "attempts").open("a") as attempts:
        attempts.write("x")
    (Path(folder) / "started").write_text("x")  # a FIFO: waits for its reader
    (Path(folder) / "go").read_text()  # a FIFO: waits for its writer
    return before + 1


@flow
def article(topic: str, depth: int = 1) -> str:
    return draft(research(topic, depth))


@pipeline
def chain(topic: str, depth: int = 1) -> str:
    return draft(research(topic, depth))


@flow
def given(value: object) -> int:
    return 1


@pipeline
def given_to_pipeline(value: object) -> int:
    return take(value)


@flow
def from_step(kind: str, size: int) -> int:
    make(kind, size)
    return 1


@flow
def from_submitted_step(kind: str, size: int) -> int:
    make.submit(kind, size).result()
    return 1


@flow
def into_step(kind: str, size: int) -> int:
    return take(made(kind, size))


@flow
def as_result(kind: str, size: int) -> object:
    return made(kind, size)


@pipeline
def from_step_of_pipeline(kind: str, size: int) -> object:
    return make(kind, size)


@pipeline
def drawn(kind: str, size: int) -> int:
    return take(made(kind, size))


@pipeline
def drawn_result(kind: str) -> object:
    return Opaque() if kind == "opaque" else None


@flow
def meeting(folder: str) -> int:
    return take(meet(folder, 1)) + 10


def made(kind: str, size: int) -> object:
    """Return a value that no codec takes, or one of this many bytes."""
    return Opaque() if kind == "opaque" else b"x" * size
