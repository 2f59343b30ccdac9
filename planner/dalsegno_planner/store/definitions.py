"""User code as announced or recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("definitions")


class DefinitionKey(NamedTuple):
    """What a definition is stored under."""

    project: str
    kind: str
    module: str
    name: str
    digest: str


class DefinitionRow(NamedTuple):
    """A definition; the document is a serialized Definition."""

    key: DefinitionKey
    document: bytes


class Definitions:
    """Records definitions once. They never change, so that those known to be stored need no second look.

    Args:
        remembered: How many keys are kept in memory.
    """

    def __init__(self, remembered: int = 10_000) -> None:
        self._remembered = remembered
        self._stored: set[DefinitionKey] = set()

    async def record(self, connection: Connection, project: str, rows: Sequence[DefinitionRow]) -> None:
        """Store what is not stored yet. In a transaction nothing is remembered: it may be rolled back."""
        missing = {row.key: row.document for row in rows if row.key not in self._stored}
        if not missing:
            return
        # One order for all, so that two planners that record the same code do not block each other.
        keys = sorted(missing)
        await connection.execute(
            SQL["record"],
            project,
            [key.kind for key in keys],
            [key.module for key in keys],
            [key.name for key in keys],
            [key.digest for key in keys],
            [missing[key] for key in keys],
        )
        if not connection.is_in_transaction():
            self._remember(keys)

    def _remember(self, keys: Sequence[DefinitionKey]) -> None:
        if len(self._stored) + len(keys) > self._remembered:
            self._stored.clear()
        self._stored.update(keys)
