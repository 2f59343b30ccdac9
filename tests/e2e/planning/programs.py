"""What the tests run and replay."""

from __future__ import annotations

from typing import Annotated, Any

from dalsegno import flow, pipeline, step

ran: list[str] = []
"""The steps that have run in this process."""


@step
def load(path: str) -> list[int]:
    ran.append("load")
    return [len(path), 2]


@step
def work(xs: list[int], by: int) -> int:
    ran.append("work")
    return sum(xs) * by


@step
def gather(parts: Any, label: str) -> str:
    ran.append("gather")
    return f"{label} {parts}"


@step
def pair(xs: list[int]) -> tuple[Annotated[int, "low"], Annotated[int, "high"]]:
    ran.append("pair")
    return min(xs), max(xs)


@step
def clean(label: str) -> str:
    ran.append("clean")
    return label.upper()


def body(path: str, by: int, label: str) -> Any:
    """Three calls of one step, a fan-in of every shape, and a step that only comes after another one."""
    xs = load(path)
    one, two, three = work(xs, by), work(xs, 10), work.with_options(id="own")([1], 1)
    low, _ = pair(xs)
    listed = gather([one, two, three, low], label)
    nested = gather({"a": (one, [two])}, "nested")
    done = clean.with_options(after=[nested])("done")
    return {"listed": listed, "nested": nested, "done": done}


@pipeline
def fan(path: str = "data", by: int = 2, label: str = "parts") -> Any:
    return body(path, by, label)


@flow
def fan_flow(path: str = "data", by: int = 2, label: str = "parts") -> Any:
    return body(path, by, label)


IDS = ["load", "work", "work_2", "own", "pair", "gather", "gather_2", "clean"]
RESULT = {"listed": "parts [12, 60, 1, 2]", "nested": "nested {'a': (12, [60])}", "done": "DONE"}


@step
def fragile(text: str) -> str:
    ran.append("fragile")
    if text == "broken":
        raise ValueError("broken on purpose")
    return text


@step
def shout(text: str) -> str:
    ran.append("shout")
    return text.upper()


@pipeline
def breaking(text: str = "broken") -> str:
    return shout(fragile(text))
