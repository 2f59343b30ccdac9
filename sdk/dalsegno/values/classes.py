"""Names by which a class is found again in another process.

A class is written as ``module:qualname``. The module of a script is ``__main__`` only in the process that
runs it, so there the name under which others can import it is written instead: the module's own with
``python -m``, else the stem of the script's file.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from dalsegno.values.refusal import Refusal


def class_name(cls: type) -> str:
    """``module:qualname`` of a class that another process can import.

    Raises:
        Refusal: If it cannot be found by that name, being local to a function, for example.
    """
    module = cls.__module__
    if module == "__main__":
        module = main_module_name() or module
    name = f"{module}:{cls.__qualname__}"
    if not isinstance(_lookup(sys.modules.get(cls.__module__), cls.__qualname__), type):
        raise Refusal(
            f"class {name} cannot be imported by its name, so its values could not be read again; "
            "define it at the top level of a module",
            reason="CLASS_NOT_IMPORTABLE",
        )
    return name


def find_class(name: str) -> type:
    """The class that `class_name` named.

    Raises:
        Refusal: If there is no such module, or no such class in it.
    """
    module, colon, qualname = name.partition(":")
    if not (module and colon and qualname):
        raise Refusal(f"{name!r} is not a class name; expected module:qualname", reason="CLASS_NOT_FOUND")
    for candidate in _candidates(module):
        found = _lookup(candidate, qualname)
        if isinstance(found, type):
            return found
    raise Refusal(f"module {module!r} has no class {qualname!r} any more", reason="CLASS_NOT_FOUND")


def exception_name(cls: type[BaseException]) -> str:
    """``module:qualname`` of an exception, the same in every process; it need not be importable."""
    module = cls.__module__
    if module == "__main__":
        module = main_module_name() or module
    return f"{module}:{cls.__qualname__}"


def main_module_name() -> str | None:
    """The name under which another process can import what this one runs as ``__main__``."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else None


def _candidates(module: str) -> Iterator[ModuleType | None]:
    # __main__ first: where the script itself asks, the class must be the one its own code tests against.
    if module in ("__main__", main_module_name()):
        yield sys.modules.get("__main__")
    yield sys.modules.get(module)
    try:
        yield importlib.import_module(module)
    except ImportError as error:
        raise Refusal(
            f"cannot import module {module!r}, where the value's class is defined: {error}",
            reason="CLASS_NOT_FOUND",
        ) from error


def _lookup(module: ModuleType | None, qualname: str) -> object:
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
