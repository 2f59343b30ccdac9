"""Finds the flow or pipeline that a command names in the user's code."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import dalsegno
from dalsegno.cli.reporting import debugging
from dalsegno.decorators import Decorated, Flow, Pipeline, Step
from dalsegno.durable import importing_code
from dalsegno.errors import UsageError

Runnable = Flow[..., Any] | Pipeline[..., Any]


def load_runnable(target: str) -> Runnable:
    """Import a module and return one of its flows or pipelines.

    Args:
        target: ``MODULE:NAME`` or ``FILE.py:NAME``; the name may be missing where the module has only one.

    Raises:
        UsageError: If there is no such module or name, the name is something else, or the module fails to import.
    """
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not place:
        raise UsageError(f"{target!r} names no module; give MODULE:FLOW", reason="NO_MODULE")
    module = load_module(place)
    found = _runnables(module)
    if not name and len(found) == 1:
        return next(iter(found.values()))
    if name in found:
        return found[name]
    raise _not_found(module, place, name, found)


def load_module(place: str) -> ModuleType:
    """Import a module by its name, or from a file; the working directory comes first, as with ``python -m``.

    Raises:
        UsageError: If it is not found, or raises while it is imported.
    """
    name = _prepare_path(place)
    try:
        with importing_code():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"no module {place!r} in {Path.cwd()} or among what is installed; "
                "give a module (package.module) or a file (folder/file.py)",
                reason="MODULE_NOT_FOUND",
                fields={"module": place},
            ) from None
        raise _failed(place, error) from error
    except (Exception, SystemExit) as error:  # user code may raise anything while it is imported
        raise _failed(place, error) from error


def _prepare_path(place: str) -> str:
    path = Path(place)
    if path.suffix != ".py":
        folder, name = Path.cwd(), place
    elif path.is_file():
        folder, name = path.resolve().parent, path.stem
    else:
        raise UsageError(f"no file {place!r} in {Path.cwd()}", reason="MODULE_NOT_FOUND", fields={"module": place})
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return name


def _failed(place: str, error: BaseException) -> UsageError:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and not _is_ours(frame.filename)]
    where = f"\n  at {own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
    more = "" if debugging() else "\nDALSEGNO_DEBUG=1 shows the traceback."
    return UsageError(
        f"{place!r} fails to import: {type(error).__name__}: {error}{where}{more}",
        reason="MODULE_FAILS_TO_IMPORT",
        fields={"module": place, "exception": type(error).__name__},
    )


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(dalsegno.__file__).parent)


def _runnables(module: ModuleType) -> Mapping[str, Runnable]:
    return {name: one for name, one in vars(module).items() if isinstance(one, Flow | Pipeline)}


def _not_found(module: ModuleType, place: str, name: str, found: Mapping[str, Runnable]) -> UsageError:
    available = ", ".join(f"{place}:{one}" for one in found) or "none"
    fields = {"module": place, "name": name}
    if not name:
        message = f"{place!r} has {len(found) or 'no'} flows and pipelines; say which: {available}"
        return UsageError(message, reason="NO_FLOW_NAMED", fields=fields)
    other = getattr(module, name, None)
    if isinstance(other, Step):
        message = f"{name!r} in {place!r} is a step; what runs is a flow or pipeline: {available}"
    elif other is not None and not isinstance(other, Decorated):
        message = f"{name!r} in {place!r} is neither a flow nor a pipeline; decorate it with @flow. There: {available}"
    else:
        near = difflib.get_close_matches(name, found, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        message = f"no flow or pipeline {name!r} in {place!r}.{meant} There: {available}"
    return UsageError(message, reason="FLOW_NOT_FOUND", fields=fields)
