"""Changes of a flow's code, with what a body that repeats an older recording must say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import indent

from dalsegno.errors import DivergenceKind

STEPS = '''
"""Written by a test."""

import os
import time

from dalsegno import flow, step, wait


def note(text: str) -> None:
    journal = os.open(os.environ["TEST_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{text}\\n".encode())
    os.close(journal)


def unused() -> int:
    return 1


@step
def one(x: int) -> int:
    note("ran one")
    return x + 1


@step
def two(x: int) -> int:
    note("ran two")
    return x + 2


@step
def three(x: int) -> int:
    note("ran three")
    return x + 3


@step
def other(x: int) -> int:
    note("ran other")
    return x + 4


@step
def last(x: int) -> int:
    return x


@step
def hold(name: str) -> None:
    """Say that the body has come so far, and keep it there until its worker is killed."""
    if os.environ["TEST_HOLDS"]:
        with open(os.environ["TEST_HOLDS"], "w") as held:
            held.write(f"{name}\\n")
        time.sleep(600)


BY_NAME = {"one": one, "two": two, "three": three}
'''

UNCHANGED = """

@flow
def branches_in_replay(x: int = 1) -> int:
    a = one(1)
    b = two(a) if x else other(8)
    return last(b)


@step
def fails_with(text: str) -> None:
    raise RuntimeError(text)


@flow
def says_diverged_in_a_step() -> None:
    fails_with("the body diverged: call 2 is extra_call")


@flow
def says_diverged_in_its_body() -> None:
    raise ValueError("DivergenceError: the replay diverged")
"""

BASE = """
a = one(x)
b = two(a)
c = three(b)
"""


@dataclass(frozen=True)
class Change:
    """A change of a body.

    Attributes:
        now: Today's code, up to the calls that end every flow.
        before: The recorded code.
        kind: What must be reported; None where the change does no harm.
        position: Of the call; None where it cannot be known beforehand.
        kinds: Where it is another kind in one of the situations.
        parameters: Today's.
        inputs: The inputs that must be named.
        tail: What comes after the calls that end every flow.
    """

    now: str
    kind: DivergenceKind | None = None
    position: int | None = None
    before: str = BASE
    expected: str | None = None
    actual: str | None = None
    kinds: Mapping[str, DivergenceKind] = field(default_factory=dict)
    parameters: str = "x: int = 1"
    inputs: tuple[str, ...] = ()
    tail: str = ""


REORDERED, RENAMED, EXTRA = DivergenceKind.REORDERED_CALL, DivergenceKind.RENAMED_CALL, DivergenceKind.EXTRA_CALL
MISSING, NOT_REACHED = DivergenceKind.MISSING_CALL, DivergenceKind.ROOT_NOT_REACHED
INPUT_CHANGED, GRAPH_CHANGED = DivergenceKind.INPUT_CHANGED, DivergenceKind.GRAPH_CHANGED

AFTER = 'note("user code after the divergence")\n'

DIVERGING: dict[str, Change] = {
    "removed": Change(f"a = one(x)\nc = three(a)\n{AFTER}", REORDERED, 2, expected="two", actual="three"),
    "removed_at_the_end": Change("a = one(x)\nc = two(a)\n", REORDERED, 3, expected="three"),
    "added": Change(f"a = one(x)\nother(99)\n{AFTER}b = two(a)\nc = three(b)", EXTRA, 2, actual="other"),
    "added_at_the_end": Change(f"{BASE}other(99)\n{AFTER}", EXTRA, 4, actual="other"),
    "swapped": Change(f"a = one(x)\nc = three(a + 2)\n{AFTER}b = two(a)\n", REORDERED, 2, actual="three"),
    "renamed": Change(f"a = one(x)\nb = other(a)\n{AFTER}c = three(b)\n", RENAMED, 2, expected="two", actual="other"),
    "renamed_id": Change(
        f"a = one(x)\nb = two.with_options(id='second')(a)\n{AFTER}c = three(b)\n",
        RENAMED, 2, expected="two", actual="second",
    ),
    "moved": Change(f"b = two(2)\n{AFTER}c = three(b)\na = one(x)\n", REORDERED, 1, expected="one", actual="two"),
    "input_changed": Change(
        f"a = one(x)\nb = two(a + 5)\n{AFTER}c = three(b)\n", INPUT_CHANGED, 2,
        expected="two", actual="two", inputs=("x",),
    ),
    "order_of_a_set": Change(
        f'c = 0\nfor name in {{"one", "two", "three"}}:\n    c += BY_NAME[name](1)\n{AFTER}', REORDERED,
        before='c = 0\nfor name in {"one", "two", "three"}:\n    c += BY_NAME[name](1)\n',
    ),
    "inputs_from_a_set": Change(
        f'for name in {{"one", "two", "three"}}:\n    c = one(len(name) * ord(name[0]))\n{AFTER}', INPUT_CHANGED,
        before='for name in {"one", "two", "three"}:\n    c = one(len(name) * ord(name[0]))\n', inputs=("x",),
    ),
    "input_from_time": Change(
        f"c = one(time.time_ns())\n{AFTER}", INPUT_CHANGED, 1, before="c = one(time.time_ns())\n", inputs=("x",)
    ),
    "order_from_time": Change(
        "for each in sorted((one, two), key=lambda each: (each is one) == (time.time() > 0)):\n"
        f"    c = each(x)\n{AFTER}", REORDERED, 1, before="c = one(x)\nc = two(x)\n", expected="one", actual="two",
    ),
    "loop_is_shorter": Change(
        "for n in range(2):\n    c = one(10 * n)\n", REORDERED, 3, before="for n in range(3):\n    c = one(10 * n)\n",
        expected="one_3",
    ),
    "loop_is_longer": Change(
        f"for n in range(4):\n    c = one(10 * n)\n{AFTER}", EXTRA, 4,
        before="for n in range(3):\n    c = one(10 * n)\n", actual="one_4",
    ),
    "ends_early": Change("a = one(x)\nb = two(a)\nreturn b\n", MISSING, 3, expected="three"),
    "root_not_reached": Change(
        f"{BASE}return c\n", NOT_REACHED, 4, kinds={"resumption": MISSING, "recovery": MISSING}
    ),
    "new_argument": Change(f"{AFTER}{BASE}", GRAPH_CHANGED, parameters="x: int, y: int", inputs=("y",)),
    "removed_argument": Change(f"{AFTER}x = 1\n{BASE}", GRAPH_CHANGED, parameters="", inputs=("x",)),
    "another_step_in_a_wait": Change(
        f'a = one(x)\nwait(name="two")\n{AFTER}c = three(a)\n', EXTRA, 2, expected="two", actual="two"
    ),
    # A body that swallows what ends it is ended all the same, and makes no further call.
    "swallowed_as_exception": Change(
        "a = one(x)\ntry:\n    b = other(99)\nexcept Exception:\n    note('user code after the divergence')\n"
        f"    b = two(a)\n{AFTER}c = three(b)\n", EXTRA, 2, expected="two", actual="other",
    ),
    "swallowed_as_anything": Change(
        "a = one(x)\ntry:\n    other(99)\nexcept BaseException:\n    pass\ntry:\n    two(a)\nexcept BaseException:\n"
        "    pass\nreturn 7\n", EXTRA, 2, expected="two", actual="other",
    ),
    "swallowed_by_finally": Change(
        "a = one(x)\ntry:\n    other(99)\nfinally:\n    return two(a)\n", EXTRA, 2, expected="two", actual="other"
    ),
    "swallowed_at_the_end": Change(
        "a = one(x)\ntry:\n    other(99)\nfinally:\n    return 7\n", EXTRA, 2, expected="two", actual="other"
    ),
}  # fmt: skip

HARMLESS: dict[str, Change] = {
    "comments": Change("# One comes first.\na = one(x)  # of x\nb = two(a)\n# And\nc = three(b)\n"),
    "docstring": Change(f'"""What it does."""\n{BASE}'),
    "formatting": Change("a = one(\n    x\n)\nb = two((a)); c = three(b,)\n"),
    "renamed_locals": Change("first = one(x)\nsecond = two(first)\nc = three(second)\n"),
    "keyword_arguments": Change("a = one(x=x)\nb = two(x=a)\nc = three(x=b)\n"),
    "plain_code": Change("values = [one(x)]\nvalues.append(two(values[-1]))\nc = three(values.pop())\n"),
    "new_call_after_the_roots": Change(BASE, tail="c = other(c)\n"),
    "helper_that_is_not_called": Change(BASE),
    "new_default_argument": Change(BASE, parameters="x: int = 5, y: int = 2"),
}

SITUATIONS = {
    "replay": "",
    "resumption": 'wait(name="go")\n',
    "recovery": 'hold.submit("{name}").result()\n',
}
"""What comes between the calls that repeat and the last one, by the situation in which they do."""


def module(*, today: bool) -> str:
    """Return the module with all flows, as it was or as it is."""
    text = STEPS
    if today:
        text = text.replace("def unused() -> int:\n    return 1", "def unused() -> int:\n    return one.name")
    for situation, between in SITUATIONS.items():
        for case, change in (DIVERGING | HARMLESS).items():
            name = flow_name(case, situation)
            code = change.now if today else change.before
            tail = change.tail if today else ""
            body = f"{code.rstrip()}\n{between.format(name=name)}c = last(c)\n{tail}return c\n"
            parameters = change.parameters if today else "x: int = 1"
            text += f"\n\n@flow\ndef {name}({parameters}):\n{indent(body.strip(), '    ')}\n"
    return text + UNCHANGED


def flow_name(case: str, situation: str) -> str:
    """Return the name of the flow for a case."""
    return f"{case}_in_{situation}"
