"""What flows, pipelines and steps have in common: a function with a name, a module and a digest."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from dalsegno.errors import UsageError
from dalsegno.values.classes import main_module_name

P = ParamSpec("P")
R = TypeVar("R")

FORBIDDEN_IN_NAMES = frozenset(":@/")
"""They mean something in selectors and routes."""


class Decorated(Generic[P, R]):
    """A function that Dal Segno knows.

    Attributes:
        function: The function itself, to be called with nothing recorded.
        name: Its name in executions.
        module: The module that defines it; the file's stem for a script that is run directly.
        is_async: Whether it is an ``async def``.
    """

    kind: str
    follows_steps = False
    """Whether its digest covers the steps that it names; in a body these have digests of their own."""
    __name__: str

    def __init__(self, function: Callable[P, R], name: str | None) -> None:
        _check_function(self.kind, function)
        self.function = function
        self.name = _checked_name(self.kind, function.__name__ if name is None else name)
        self.module = module_name(function)
        self.is_async = inspect.iscoroutinefunction(function)
        functools.update_wrapper(cast("Callable[P, R]", self), function)
        _decorated[next(_places)] = self

    @functools.cached_property
    def digest(self) -> str:
        """The digest of its code and of the project's functions that it calls."""
        from dalsegno.code_digest import code_digest

        return code_digest(self.function, follow_steps=self.follows_steps)

    def __reduce__(self) -> str:
        return self.function.__qualname__

    def __repr__(self) -> str:
        return f"<{self.kind} {self.module}:{self.name}>"


_places = itertools.count()
_decorated: weakref.WeakValueDictionary[int, Decorated[..., Any]] = weakref.WeakValueDictionary()


def decorated_objects() -> tuple[Decorated[..., Any], ...]:
    """Return every flow, pipeline and step that exists in this process.

    Where several have one name, as in a notebook whose cell was run again, the one that the name stands for now comes
    last: the one that the module has under it, else the one that was defined last.
    """
    return tuple(sorted(_decorated.values(), key=_is_current))


def _is_current(decorated: Decorated[..., Any]) -> bool:
    module = sys.modules.get(decorated.function.__module__)
    return getattr(module, decorated.function.__name__, None) is decorated


def module_name(function: Callable[..., Any]) -> str:
    """Return the module of a function under the name by which every process knows it.

    A script that is run directly is known by its file's stem, and a module run with ``-m`` by its own name.
    """
    if function.__module__ != "__main__":
        return function.__module__
    return main_module_name() or "__main__"


def _check_function(kind: str, function: object) -> None:
    if isinstance(function, Decorated):
        raise UsageError(f"@{kind} on {function!r}, which is decorated already", reason="NOT_A_FUNCTION")
    if not inspect.isfunction(function):
        raise UsageError(
            f"@{kind} needs a function written with def, not {function!r}; options go by keyword: @{kind}(name=…)",
            reason="NOT_A_FUNCTION",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"@{kind} on {function.__name__!r}, which is a generator: what it yields cannot be recorded as "
            "one result; return a list",
            reason="GENERATOR",
            fields={"function": function.__name__},
        )


def _checked_name(kind: str, name: object) -> str:
    if not isinstance(name, str) or not name.strip() or name != name.strip() or not name.isprintable():
        raise UsageError(f"@{kind}(name={name!r}): give a name that is not blank", reason="INVALID_NAME")
    if FORBIDDEN_IN_NAMES.intersection(name):
        raise UsageError(
            f"@{kind}(name={name!r}): a name may not contain ':', '@' or '/', which mean something in selectors",
            reason="INVALID_NAME",
        )
    return name
