"""Flows that ask."""

from __future__ import annotations

from pydantic import BaseModel

import dalsegno
from dalsegno import WaitTimeoutError, flow, step, wait


class Verdict(BaseModel):
    grade: int
    remark: str = ""


SCHEMA = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


@step
def prepare(topic: str) -> str:
    return topic.upper()


@flow
def typed(topic: str) -> list[str]:
    prepared = prepare(topic)
    number = wait(name="number", schema=int, question=f"How many {prepared}?", metadata={"to": "ada"})
    verdict = wait(name="verdict", schema=Verdict)
    colour = wait(name="colour", schema=SCHEMA)
    go_on = wait(name="publish")
    return [repr(number + 1), type(verdict).__name__, verdict.remark, colour["colour"], repr(go_on)]


@flow
def careless() -> str:
    """Swallow every exception that there is."""
    while True:
        try:
            return str(wait(name="word", schema=str))
        except Exception:  # noqa: BLE001 - it is careless
            continue


@flow
def repeated(times: int) -> list[int]:
    return [wait(name="count", schema=int) for _ in range(times)]


@flow
def hurried() -> str:
    try:
        return str(wait(name="approve", timeout=0.2))
    except WaitTimeoutError as error:
        return f"{isinstance(error, TimeoutError)}: {prepare(str(error))}"


@step
def asks() -> bool:
    return bool(dalsegno.wait(name="inside"))


@flow
def misplaced() -> str:
    try:
        asks()
    except dalsegno.ContextError as error:
        return error.reason
    return "no error"


@flow
def gate() -> str:
    wait(name="gate")
    return "through"
