"""Named SQL: the statements of ``queries/*.sql``, each under a line ``-- name: x``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load(module: str) -> Mapping[str, str]:
    """The statements of ``queries/<module>.sql`` by their names.

    Raises:
        ValueError: If a name comes twice, or text precedes the first one.
    """
    text = files("dalsegno_planner.store").joinpath("queries", f"{module}.sql").read_text("utf-8")
    head, *parts = _NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if any(line and not line.startswith("--") for line in head.splitlines()) or len(set(names)) != len(names):
        message = f"queries/{module}.sql: every statement needs a name of its own"
        raise ValueError(message)
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}
