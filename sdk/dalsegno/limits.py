"""How many calls run at once."""

from __future__ import annotations

from dataclasses import dataclass

from dalsegno.decorated import FORBIDDEN_IN_NAMES
from dalsegno.errors import UsageError

_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limit:
    """A number of calls that run at once, shared by the steps that have it: ``@step(concurrency=gpu)``.

    It holds over all executors and executions of a project. Steps of several scripts share it by its name.

    Attributes:
        name: Its name in the project.
        most: How many calls run at most.

    Raises:
        UsageError: If the name is blank, or the number is none from 1.
    """

    name: str
    most: int

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_number(f"Limit({self.name!r}, most={self.most!r})", self.most)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """What is said of a step's concurrency: under which name its calls are counted, and how many run at most."""

    name: str
    most: int


def checked_concurrency(step: str, key: str, given: object) -> Concurrency | None:
    """Return what limits a step.

    Args:
        step: The name of the step.
        key: Under which its calls are counted where they are counted alone.
        given: A number, a `Limit`, or None.

    Raises:
        UsageError: If it is none of these.
    """
    if given is None:
        return None
    if isinstance(given, Limit):
        return Concurrency(given.name, given.most)
    _check_number(f"step {step!r}: concurrency={given!r}", given)
    assert isinstance(given, int)
    return Concurrency(key, given)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or FORBIDDEN_IN_NAMES.intersection(name):
        raise UsageError(
            f"Limit(name={name!r}): give a name that is not blank, without ':', '@' and '/'", reason="INVALID_LIMIT"
        )


def _check_number(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _LARGEST:
        raise UsageError(
            f"{what} does not say how many calls run at once; give a whole number from 1, or a dalsegno.Limit that "
            "several steps share",
            reason="INVALID_LIMIT",
        )
