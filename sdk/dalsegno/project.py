"""Which project names belong to."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_SETTING = "DALSEGNO_PROJECT"
DEFAULT_PROJECT = "default"


def project_name(start: Path | None = None) -> str:
    """Return the project of a folder.

    It is what ``DALSEGNO_PROJECT`` says; else the name of the nearest folder, from `start` upwards, that has
    a ``pyproject.toml`` or is the root of a git repository; else ``default``.

    Args:
        start: Where to begin; the working directory where none is given.
    """
    chosen = os.environ.get(PROJECT_SETTING, "").strip()
    if chosen:
        return chosen
    try:
        folder = (start or Path.cwd()).resolve()
    except FileNotFoundError:  # the working directory was deleted
        return DEFAULT_PROJECT
    for candidate in (folder, *folder.parents):
        if (candidate / "pyproject.toml").is_file() or (candidate / ".git").exists():
            return candidate.name or DEFAULT_PROJECT
    return DEFAULT_PROJECT
