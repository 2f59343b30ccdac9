"""What a plan marks, where that is little: found and read in one round trip, and kept in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from asyncpg import Record

from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("replays")

FEW = 2_000
"""Up to so many marks are kept in memory. More stay in the temporary tables of the connection."""


@dataclass(frozen=True, slots=True)
class FewMarks:
    """The marks of a plan, as `few_marks` returns them, with what is to be said of other invocations.

    Attributes:
        rows: By number. `reasons` is set for roots.
        needed: Reused invocations whose outputs may not be there, by number; `taker` is a step that takes them.
        changed: Reused steps whose code has changed.
        reading: Reused steps that read an overridden flow input.
    """

    rows: Sequence[Record]
    needed: Sequence[Record]
    changed: Sequence[Record]
    reading: Sequence[Record]

    @classmethod
    def of(cls, found: Iterable[Record]) -> FewMarks:
        """The marks in the order of their numbers."""
        rows: list[Record] = []
        others: dict[str, list[Record]] = {"needed": [], "changed": [], "reading": []}
        for row in found:
            others.get(row["role"], rows).append(row)
        rows.sort(key=_number)
        return cls(rows, sorted(others["needed"], key=_number), others["changed"], others["reading"])

    async def store(self, connection: Connection) -> None:
        """Put the marks into the temporary tables of the connection."""
        await connection.execute(SQL["store_marks"], *self.columns())

    def columns(self) -> tuple[list[int], list[str], list[bool]]:
        """Numbers, roles, and whether outputs are overridden: the columns of the temporary table."""
        return (
            [row["number"] for row in self.rows],
            [row["role"] for row in self.rows],
            [row["overridden"] for row in self.rows],
        )

    @property
    def affected(self) -> list[int]:
        """The numbers of what re-executes."""
        return [row["number"] for row in self.rows if row["role"] == "affected"]

    @property
    def roots(self) -> list[int]:
        """The numbers of the roots."""
        return [row["number"] for row in self.rows if row["reasons"]]

    def counts(self) -> Mapping[str, int]:
        """How many roots, affected and waits there are, and what identifies the sets."""
        affected = self.affected
        roots = {row["number"]: sorted(set(row["reasons"])) for row in self.rows if row["reasons"]}
        waits = [row["number"] for row in self.rows if row["role"] == "wait"]
        content = hashlib.blake2b(json.dumps([affected, roots, waits]).encode(), digest_size=8).digest()
        return {
            "roots": len(roots),
            "affected": len(affected),
            "waits": len(waits),
            "hash": int.from_bytes(content, "big"),
        }

    def page(self, only_roots: bool, only_waits: bool, after: int, limit: int) -> list[Record]:
        """Some of what is affected; of waits also those that are asked again without being affected."""
        chosen = (
            row
            for row in self.rows
            if row["number"] > after
            and (row["kind"] == "wait" if only_waits else row["role"] == "affected")
            and (not only_roots or row["reasons"] is not None)
        )
        return list(islice(chosen, limit))

    @property
    def overridden_anyway(self) -> list[Record]:
        """What re-executes although its output is overridden."""
        return [row for row in self.rows if row["overridden"] and row["role"] == "affected"]

    @property
    def inputs_have_objects(self) -> bool:
        """Whether inputs of what is affected may have values in the object store."""
        return any(row["objects"] for row in self.rows)


def _number(row: Record) -> int:
    number: int = row["number"]
    return number
