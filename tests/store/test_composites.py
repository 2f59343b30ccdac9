"""The rows that dispatch hands over are those that the database takes: nothing else notices before they are sent."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from dalsegno_planner.dispatch.composites import COMPOSITES

_TYPES: dict[str, object] = {
    "boolean": bool,
    "bytea": bytes,
    "double precision": float,
    "integer": int,
    "integer[]": Sequence[int],
    "smallint": int,
    "text": str,
    "text[]": Sequence[str],
    "timestamp with time zone": datetime,
    "uuid": UUID,
}


def _without_none(annotation: object) -> object:
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    return kinds[0] if len(kinds) != len(typing.get_args(annotation)) else annotation


@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda composite: composite.__name__)
async def test_a_row_has_the_columns_of_its_type(database: str, composite: type) -> None:
    opened = await asyncpg.connect(database)
    columns = await opened.fetch(
        """SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
           WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
        re.sub(r"(?<!^)(?=[A-Z])", "_", composite.__name__).lower(),
    )
    await opened.close()
    fields = typing.get_type_hints(composite)
    assert [(name, _without_none(kind)) for name, kind in fields.items()] == [
        (column["attname"], _TYPES[column["type"]]) for column in columns
    ]


async def test_every_type_that_the_commit_takes_has_its_row(database: str) -> None:
    opened = await asyncpg.connect(database)
    taken = await opened.fetch(
        """SELECT e.typname FROM pg_proc p CROSS JOIN unnest(p.proargtypes) AS argument
           JOIN pg_type t ON t.oid = argument JOIN pg_type e ON e.oid = t.typelem
           WHERE p.proname = 'dispatch_commit' AND e.typtype = 'c'"""
    )
    await opened.close()
    assert {row["typname"].replace("_", "") for row in taken} == {one.__name__.lower() for one in COMPOSITES}
