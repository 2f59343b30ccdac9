"""The execution that a user means: by its ID, a part of that, or its run name."""

from __future__ import annotations

import difflib
import re
from uuid import UUID

from dalsegno.errors import NotFoundError, StateError, UsageError
from dalsegno_planner.core.execution import DEFAULT_PROJECT, Execution
from dalsegno_planner.core.ids import parse_id
from dalsegno_planner.store.executions import SQL, get, get_by_name
from dalsegno_planner.store.pool import Connection

SHORTEST_PART = 4
"""Hexadecimal digits that a shortened ID has at least."""

_HEX = re.compile(r"[0-9a-f-]+")
_NAMED = 5


async def find(connection: Connection, text: str, project: str = "") -> Execution:
    """Return the execution that a user means: by ID, run name, or a unique prefix or suffix of an ID.

    Raises:
        UsageError: Nothing was given.
        NotFoundError: There is none, with the closest run names.
        StateError: There are several, with their IDs.
    """
    wanted, home = text.strip(), project or DEFAULT_PROJECT
    if not wanted:
        raise UsageError(
            "no execution was named; give its ID, a unique part of it, or its run name", reason="MISSING_EXECUTION"
        )
    whole = whole_id(wanted)
    found = await get(connection, whole) if whole is not None else None
    found = found or await get_by_name(connection, wanted, home)
    if found is None and whole is None:
        found = await _find_by_part(connection, wanted)
    if found is None:
        raise await _not_found(connection, wanted, home, whole)
    return found


def whole_id(text: str) -> UUID | None:
    """Return the ID that a text is; nothing where it is a part of one, or a name."""
    try:
        return UUID(text)
    except ValueError:
        return None


async def _find_by_part(connection: Connection, text: str) -> Execution | None:
    digits = text.lower().replace("-", "")
    if not _HEX.fullmatch(text.lower()) or not SHORTEST_PART <= len(digits) < 32:
        return None
    lowest, highest = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    rows = await connection.fetch(SQL["ids_by_prefix"], lowest, highest)
    rows = rows or await connection.fetch(SQL["ids_by_suffix"], digits[::-1])
    if len(rows) > 1:
        shown = [f"{row['id']} ({row['name']})" for row in rows[:5]] + ["…"] * (len(rows) > 5)
        raise StateError(
            f"{text!r} is the beginning or end of several executions' IDs: {', '.join(shown)}; give more of the ID",
            reason="AMBIGUOUS_EXECUTION",
            fields={"execution": text},
        )
    return await get(connection, rows[0]["id"]) if rows else None


async def _not_found(connection: Connection, text: str, project: str, whole: UUID | None) -> NotFoundError:
    hint = "list them with: dalsegno executions list"
    if whole is not None:
        owner = await get(connection, parse_id(whole).execution_id)
        if owner is not None:
            hint = f"it is the ID of a call or artifact of execution {owner.id} ({owner.name})"
    else:
        names = [row["name"] for row in await connection.fetch(SQL["similar_names"], project)]
        begun = [name for name in names if name.startswith(text)][:_NAMED]
        close = begun or difflib.get_close_matches(text, names, n=_NAMED)
        if close:
            hint = f"did you mean {', '.join(close)}?"
    return NotFoundError(
        f"no execution has the ID or, in project {project!r}, the run name {text!r}; {hint}",
        reason="EXECUTION_NOT_FOUND",
        fields={"execution": text, "project": project},
    )
