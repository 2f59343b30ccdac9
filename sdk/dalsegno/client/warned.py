"""Warnings of executions, and whose line they point at."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalsegno.client.executions import Execution

_PACKAGE = f"{__name__.partition('.')[0]}."


def callers_level() -> int:
    """Return the ``stacklevel`` with which a warning of this function's caller points at the user's own line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def warn_of(execution: Execution) -> None:
    """Warn the user's own line of what is to be known of an execution."""
    for text in execution.warnings:
        warnings.warn(f"replay {execution.name}: {text}", stacklevel=callers_level())
