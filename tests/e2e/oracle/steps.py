"""The steps of generated programs: each returns something that depends on all its inputs, and counts that it ran."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from dalsegno import step

ran: list[str] = []
"""The salts of the steps that have run in this process; each call of a program has a salt of its own."""

_mended: set[str] = set()


@contextmanager
def mended(salts: frozenset[str]) -> Iterator[None]:
    """Let these calls succeed for a while, as if what made them fail had been mended."""
    _mended.update(salts)
    try:
        yield
    finally:
        _mended.clear()


def digest_of(*what: object) -> str:
    """Return a text that differs wherever anything of `what` does, lists from tuples included."""
    return hashlib.blake2b(repr(what).encode(), digest_size=6).hexdigest()


def number_of(below: int, *what: object) -> int:
    """Return a number that depends on `what`."""
    return int(digest_of("number", *what), 16) % below


def compute(name: str, salt: str, inputs: Mapping[str, Any], *, well: bool = False) -> Any:
    """Return what a step returns; without a trace, and without an engine. All is `well` where nothing fails.

    Raises:
        ValueError: What a step raises that fails on purpose.
    """
    digest = digest_of(name, salt, sorted(inputs.items(), key=lambda one: one[0]))
    match name:
        case "split":
            return f"{digest} left", f"{digest} right"
        case "count":
            return number_of(4, digest)
        case "flag":
            return number_of(2, digest) == 1
        case "collect":
            return [f"{digest} {index}" for index in range(2)]
        case "fragile" if number_of(3, digest) == 0 and not well:
            raise ValueError(f"on purpose: {digest}")
        case _:
            return digest


def _counted(name: str, salt: str, **inputs: Any) -> Any:
    ran.append(salt)
    return compute(name, salt, inputs, well=salt in _mended)


@step
def mix(salt: str, first: Any, second: Any = None) -> str:
    return str(_counted("mix", salt, first=first, second=second))


@step
def gather(salt: str, parts: Any) -> str:
    return str(_counted("gather", salt, parts=parts))


@step
def split(salt: str, parts: Any) -> tuple[Annotated[str, "left"], Annotated[str, "right"]]:
    left, right = _counted("split", salt, parts=parts)
    return left, right


@step
def count(salt: str, parts: Any) -> int:
    return int(_counted("count", salt, parts=parts))


@step
def flag(salt: str, parts: Any) -> bool:
    return bool(_counted("flag", salt, parts=parts))


@step
def collect(salt: str, parts: Any) -> list[str]:
    return list(_counted("collect", salt, parts=parts))


@step
def fragile(salt: str, parts: Any) -> str:
    return str(_counted("fragile", salt, parts=parts))


@step
async def later(salt: str, parts: Any) -> str:
    return str(_counted("later", salt, parts=parts))


STEPS = {one.name: one for one in (mix, gather, split, count, flag, collect, fragile, later)}
INPUT_NAMES = {name: ("first", "second") if name == "mix" else ("parts",) for name in STEPS}
FLOW_INPUTS = ("x", "y", "z")
