"""Flows that are replayed and resumed: what their bodies receive, and what runs again."""

from __future__ import annotations

import os
from pathlib import Path

from dalsegno import as_completed, flow, pipeline, step, wait


class Refused(Exception):
    """An exception of the user's own."""


class Peculiar(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


def note(folder: str, text: str) -> None:
    journal = os.open(Path(folder) / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{text}\n".encode())
    os.close(journal)


@step
def research(folder: str, topic: str) -> str:
    note(folder, "research")
    return f"notes on {topic}"


@step
def draft(folder: str, text: str) -> str:
    note(folder, "draft")
    return f"draft of {text}"


@step
def append(folder: str, items: list[str], item: str) -> list[str]:
    note(folder, "append")
    items.append(item)
    return items


@step
def rate(folder: str, text: str) -> int:
    """The length of a note that the test has left."""
    note(folder, "rate")
    return len((Path(folder) / "rating").read_text())


@step
def publish(folder: str, text: str) -> str:
    note(folder, "publish")
    return f"published {text}"


@step
def discard(folder: str, text: str) -> str:
    note(folder, "discard")
    return "discarded"


@step
def refuse(folder: str, peculiarly: bool) -> None:
    note(folder, "refuse")
    raise Peculiar(4) if peculiarly else Refused("no", 4)


@flow
def article(folder: str, topic: str) -> str:
    note(folder, "body")
    notes = research(folder, topic)
    text = draft(folder, notes.upper())
    return publish(folder, text)


@flow
def rated(folder: str, topic: str) -> str:
    notes = research(folder, topic)
    if rate(folder, notes) > 3:
        return publish(folder, draft(folder, notes))
    return discard(folder, notes)


@flow
def growing(folder: str) -> list[list[str]]:
    mine: list[str] = []
    first = append(folder, mine, "a")
    again = append.submit(folder, first, "b").result()
    first.append("changed by the body")
    third = append(folder, again, "c")
    return [mine, again, third]


@flow
def catching(folder: str, asks: bool) -> list[str]:
    caught = []
    for peculiarly in (False, True):
        try:
            refuse(folder, peculiarly)
        except Exception as error:  # noqa: BLE001 - what it is, is the question
            caught.append(f"{type(error).__module__}.{type(error).__name__}: {error}")
    if asks:
        wait(name="go")
    publish(folder, "all")
    return caught


@flow
def careless(folder: str) -> str:
    """A body that swallows every exception, also those that it does not know of."""
    answer = None
    try:
        answer = wait(name="go", schema=str)
    except Exception:  # noqa: BLE001 - that is what it does
        note(folder, "swallowed")
    return publish(folder, str(answer))


@flow
def swallowing_all(folder: str) -> str:
    try:
        answer = wait(name="go", schema=str)
    except BaseException:  # noqa: BLE001 - and that is worse
        note(folder, "swallowed")
        publish.submit(folder, "nothing")
        answer = "never"
    return publish(folder, answer)


@flow
def idle(folder: str) -> str:
    note(folder, "body")
    return "nothing to do"


class Opaque:
    """A value that no codec takes."""


@flow
def opaque_result(folder: str) -> object:
    publish(folder, "kept")
    return Opaque()


@step
def waiting_step(folder: str) -> object:
    return wait(name="inside")


@step
def calling_step(folder: str) -> object:
    return publish(folder, "inside")


@step
def submitting_step(folder: str) -> object:
    return publish.submit(folder, "inside")


@step
def completing_step(folder: str) -> object:
    return list(as_completed([]))


@flow
def misplaced(folder: str, which: str) -> object:
    steps = {"wait": waiting_step, "step": calling_step, "submit": submitting_step, "as_completed": completing_step}
    before = publish(folder, "before")
    steps[which](folder)
    return before


@pipeline
def drawn(folder: str, topic: str) -> str:
    note(folder, "body")
    return publish(folder, draft(folder, research(folder, topic)))


@pipeline(name="drawn")
def drawn_otherwise(folder: str, topic: str) -> str:
    notes = discard(folder, research(folder, topic))
    return publish(folder, draft.with_options(after=notes)(folder, research(folder, topic)))


@pipeline(name="drawn")
def drawn_with_more(folder: str, topic: str) -> str:
    text = draft(folder, research(folder, topic))
    return discard(folder, publish(folder, text))
