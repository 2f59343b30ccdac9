"""What must change the digest of a step's code, and what must not."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dalsegno.code_digest import code_digest

Load = Callable[..., ModuleType]

BASE = '''
import math
from functools import lru_cache, partial
from dalsegno import step
from helpers import area, Shape, UNIT
import helpers

RATE = 0.5
TABLE = {"a": 1}
PLACES = 2

def scale(x, by=RATE):
    """Scales."""
    return deeper(x) * by

def deeper(x):
    return x + TABLE["a"]

@lru_cache(maxsize=None)
def cached(x):
    return x

class Model:
    """Doc."""
    base = 1

    def fit(self, xs):
        return [scale(x) for x in xs]

def unrelated():
    return 1

half = partial(scale, by=0.5)

@step(retries=3)
def train(xs, rounds=10):
    """Trains.

    With care.
    """
    # a comment
    total = sum(area(x) for x in xs) * UNIT
    text = f"{total:.{PLACES}f} of" " it"
    return Model().fit(xs), cached(total), helpers.perimeter(total), half(1), math.pi, text
'''

HELPERS = """
UNIT = 60 * 60

def area(x):
    return x * x

def perimeter(x):
    return side(x) * 4

def side(x):
    return x

class Shape:
    sides = 4

def not_used():
    return 0
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a version of the project from a folder of its own."""
    numbers = itertools.count()
    loaded = {"helpers"}

    def load(source: str, helpers: str = HELPERS, name: str = "steps") -> ModuleType:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        (folder / "helpers.py").write_text(helpers)
        monkeypatch.syspath_prepend(str(folder))
        loaded.add(name)
        for module in loaded:
            sys.modules.pop(module, None)
        return importlib.import_module(name)

    yield load
    for module in loaded:
        sys.modules.pop(module, None)


def digest(module: ModuleType, name: str = "train") -> str:
    return code_digest(getattr(module, name))


SAME = {
    "a comment": ("# a comment", "# another\n    # one"),
    "no docstring": ('    """Trains.\n\n    With care.\n    """\n', ""),
    "another docstring": ('"""Scales."""', '"""Scales well."""'),
    "a class docstring": ('"""Doc."""', '"""Docs."""'),
    "formatting": ("total = sum(area(x) for x in xs) * UNIT", "total = (\n        sum( (area(x)) for x in xs)*UNIT)"),
    "quotes": ('TABLE["a"]', "TABLE['a']"),
    "an f-string in pieces": ('f"{total:.{PLACES}f} of" " it"', 'f"{total:.{PLACES}f}" f" of it"'),
    "the options of our decorator": ("@step(retries=3)", "@step(retries=4, timeout=10)"),
    "our decorator without options": ("@step(retries=3)", "@step"),
    "our decorator gone": ("@step(retries=3)\n", ""),
    "an unrelated function": ("def unrelated():\n    return 1", "def unrelated():\n    return 2"),
    "an unused helper": ("def not_used():\n    return 0", "def not_used():\n    return 1"),
    "a new import": ("import math", "import math\nimport json"),
    "lines moved": ("import math", "\n\n\nimport math"),
    "a useless pass": ("    return deeper(x) * by", "    pass\n    return deeper(x) * by"),
    "the same number": ("rounds=10", "rounds=1_0"),
}

CHANGED = {
    "the body": ("* UNIT", "+ UNIT"),
    "a default": ("rounds=10", "rounds=11"),
    "an argument": ("rounds=10", "rounds=10, more=None"),
    "a called function": ("deeper(x) * by", "deeper(x) / by"),
    "a function called by that": ('x + TABLE["a"]', 'x - TABLE["a"]'),
    "a constant": ("RATE = 0.5", "RATE = 0.6"),
    "a table": ('TABLE = {"a": 1}', 'TABLE = {"a": 2}'),
    "a constant in an f-string": ("PLACES = 2", "PLACES = 3"),
    "a method": ("[scale(x) for x in xs]", "[scale(x) for x in xs[1:]]"),
    "an attribute of a class": ("base = 1", "base = 2"),
    "another decorator": ("@lru_cache(maxsize=None)", "@lru_cache(maxsize=1)"),
    "a partial": ("by=0.5)", "by=0.25)"),
    "an imported function": ("return x * x", "return x * x * x"),
    "a function of an imported module": ("side(x) * 4", "side(x) * 3"),
    "a function called there": ("def side(x):\n    return x", "def side(x):\n    return -x"),
    "an imported constant": ("UNIT = 60 * 60", "UNIT = 60 * 61"),
    "a type": ("rounds=10", "rounds: float = 10"),
    "True for 1": ('x + TABLE["a"]', "x + True"),
}


def changed(load: Load, old: str, new: str) -> str:
    assert (BASE + HELPERS).count(old) == 1
    return digest(load(BASE.replace(old, new), HELPERS.replace(old, new)))


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_does_not_matter(load: Load, change: tuple[str, str]) -> None:
    assert changed(load, *change) == digest(load(BASE))


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_matters(load: Load, change: tuple[str, str]) -> None:
    assert changed(load, *change) != digest(load(BASE))


def test_the_place_does_not_matter(load: Load) -> None:
    source = "def train(x):\n    return helper(x)\n"
    helper = "def helper(x):\n    return x + 1\n"
    here = digest(load(helper + source))
    assert digest(load("from helpers import helper\n" + source, helper)) == here
    assert digest(load(helper + source, name="other")) == here


_OTHERS = """
import os, random
from pathlib import Path
HOST = os.environ.get("HOST", random.random())
CACHE = {}
CACHE["seen"] = random.random()
def train(x):
    import json
    from helpers import area
    import helpers as h
    try:
        area = area
    except (ValueError, KeyError) as error:
        raise RuntimeError from error
    match x:
        case {"a": [first, *others], **rest} if first:
            return lambda first, *a, k=HOST, **kw: (first, others, rest, a, k, kw, CACHE)
        case Path() as path:
            return {y: z for y, z in path.items() if (w := y)}, json, h.perimeter(x)
    return [side for side in x]
"""


def test_local_imports_count_and_runtime_values_do_not(load: Load) -> None:
    base = digest(load(_OTHERS))
    assert digest(load(_OTHERS)) == base
    assert digest(load(_OTHERS, HELPERS.replace("x * x", "x"))) != base
    assert digest(load(_OTHERS, HELPERS.replace("* 4", "* 5"))) != base
    assert digest(load(_OTHERS, HELPERS.replace("sides = 4", "sides = 5"))) == base


def _maker(by: object) -> Callable[..., Any]:
    def made(x: Any) -> Any:
        return x, by

    return made


def test_what_a_closure_holds_counts() -> None:
    assert code_digest(_maker(1)) == code_digest(_maker(1))
    assert code_digest(_maker(1)) != code_digest(_maker(2))
    assert code_digest(_maker(1)) != code_digest(_maker(True))
    assert code_digest(_maker(_maker(1))) != code_digest(_maker(_maker(2)))
    assert code_digest(_maker(object())) == code_digest(_maker(object()))


def test_lambdas_on_one_line_are_told_apart() -> None:
    one, two, same = (lambda x: x + 1), (lambda x: x + 2), (lambda x: x + 1)
    assert code_digest(one) == code_digest(same)
    assert code_digest(one) != code_digest(two)


class _Wrapper:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self) -> None:
        """Stands for a decorator object."""


def _plain(x: int) -> int:
    return x


def test_wrappers_are_looked_through() -> None:
    @functools.wraps(_plain)
    def wrapped(x: int) -> int:
        return _plain(x)

    expected = code_digest(_plain)
    for wrapper in (wrapped, _Wrapper(_plain), _Wrapper(wrapped), functools.lru_cache(_plain)):
        assert code_digest(wrapper) == expected
    assert code_digest(_Holder().method) == code_digest(_Holder.method)


class _Holder:
    def method(self) -> int:
        return len(str(self))


def test_recursion_and_cycles_end() -> None:
    assert code_digest(_even) != code_digest(_odd)


def _even(n: int) -> bool:
    return n == 0 or _odd(n - 1)


def _odd(n: int) -> bool:
    return n != 0 and _even(n - 1)


def test_without_source_the_bytecode_counts() -> None:
    def made(source: str) -> Any:
        names: dict[str, Any] = {}
        exec(source, names)
        return names["train"]

    base = code_digest(made("def helper(): return 1\ndef train(x): return x + helper()"))
    assert code_digest(made("def helper(): return 1\ndef train(x):\n    return x + helper()")) == base
    assert code_digest(made("def helper(): return 1\ndef train(x): return x - helper()")) != base
    assert code_digest(made("def helper(): return 2\ndef train(x): return x + helper()")) != base
    assert len(code_digest(len)) == 64


def test_installed_packages_are_not_followed() -> None:
    import pydantic

    def uses(x: Any) -> Any:
        return pydantic.TypeAdapter(int).validate_python(x), importlib.util.find_spec(x)

    assert len(code_digest(uses)) == 64


def test_steps_can_be_left_out(load: Load) -> None:
    source = """
    from dalsegno import flow, step
    @step
    def train(x):
        return x
    def body(x):
        return train(x)
    """
    one, two = load(source), load(source.replace("return x\n", "return x + 1\n"))
    assert digest(one, "body") != digest(two, "body")
    assert code_digest(one.body, follow_steps=False) == code_digest(two.body, follow_steps=False)


_SCRIPT = '''
import sys
from dataclasses import dataclass
RATE = 2
@dataclass
class Point:
    x: int = RATE
def helper(p: Point, *, k={1: (2, 3)}):
    return f"{p.x!r:>{RATE}}" f"" " and {}" f"{p=}" + "é"
def train(xs: list[int], y=lambda a: -a ** 2) -> "tuple[int]":
    """Doc."""
    with open(xs[0]) as a, open(xs[1]) as b:
        for i, (c, d) in enumerate(zip(a, b)):
            if i % 2 == 0 and not c or d:
                yield helper(Point(i)), xs[1:2, ...], 1e10, 10**100, b"x", 3j, None, True
            else:
                del c
    try:
        x: int = 5
    except* ValueError:
        raise
    print(*xs, sep="", **{})
if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    from dalsegno.code_digest import code_digest
    print(code_digest(train))
'''

GOLDEN = "527d97524e64a05c5668a26dc0de91441b0eade47fe335e0a4e79016fc5be724"


def _interpreters() -> list[str]:
    here = Path(sys.base_prefix).parent
    return [sys.executable, *map(str, sorted(here.glob("3.1[2-9]*/bin/python3")))]


@pytest.mark.parametrize("python", _interpreters(), ids=lambda path: Path(path).parent.parent.name)
def test_the_same_on_every_version_and_machine(python: str, tmp_path: Path) -> None:
    (tmp_path / "train_script.py").write_text(_SCRIPT)
    sdk = str(Path(__file__).parents[2] / "sdk")

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert run("train_script.py", sdk) == GOLDEN
    imported = (
        "import sys; sys.path[:0] = sys.argv[1:]; import train_script as t; from dalsegno import code_digest as d"
    )
    assert run("-c", f"{imported}; print(d.code_digest(t.train))", sdk) == GOLDEN
