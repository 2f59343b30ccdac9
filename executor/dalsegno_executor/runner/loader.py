"""Loads the module or file whose flows and steps a runner runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from dalsegno.decorators import Decorated, decorated_objects
from dalsegno.durable import importing_code
from dalsegno.errors import UsageError

_LINES_SHOWN = 12


def load_target(target: str) -> tuple[Decorated[..., Any], ...]:
    """Load a module or file, and return what is decorated in it and in what it imports.

    Args:
        target: A dotted module name, or the path of a ``.py`` file.

    Raises:
        UsageError: If it cannot be imported, or defines nothing.
    """
    _load(target)
    objects = decorated_objects()
    if not objects:
        raise UsageError(
            f"{target} defines no flow, pipeline or step; decorate functions with @flow, @pipeline or @step",
            reason="NOTHING_DEFINED",
            fields={"target": target},
        )
    return objects


def _load(target: str) -> ModuleType:
    is_file = target.endswith(".py") or os.sep in target
    try:
        with importing_code():
            return _load_file(Path(target)) if is_file else _load_module(target)
    except UsageError:
        raise
    except BaseException as error:  # whatever the user's code raises at import, SystemExit too
        raise UsageError(
            f"cannot import {target}: {_last_part(error)}",
            reason="IMPORT_FAILED",
            fields={"target": target},
        ) from error


def _load_module(name: str) -> ModuleType:
    _search_first(str(Path.cwd()))
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", reason="NO_SUCH_FILE", fields={"target": str(path)})
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        raise UsageError(
            f"{path} would be module {name!r}, and there is another module of this name; rename the file",
            reason="MODULE_NAME_TAKEN",
            fields={"target": str(path), "module": name},
        )
    _search_first(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file", reason="NOT_PYTHON", fields={"target": str(path)})
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _search_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _last_part(error: BaseException) -> str:
    """Return the end of the traceback: where in the user's code it happened, and what."""
    start = error.__traceback__
    while start is not None and start.tb_next is not None and _is_machinery(start.tb_frame.f_code.co_filename):
        start = start.tb_next
    text = "".join(traceback.format_exception(type(error), error, start, chain=False)).rstrip()
    lines = text.splitlines()
    return "\n".join(lines if len(lines) <= _LINES_SHOWN else ["…", *lines[-_LINES_SHOWN:]])


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)
