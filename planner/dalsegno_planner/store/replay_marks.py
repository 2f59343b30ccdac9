"""What a plan marks, where that is little: read once, in the round trip that marks it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from asyncpg import Record

FEW = 2_000
"""Up to so many marks are read when they are made. All of them are in the temporary tables of the connection, too."""


@dataclass(frozen=True, slots=True)
class FewMarks:
    """The marks of a plan, as `mark_affected` returns them.

    Attributes:
        rows: By number. `reasons` is set for roots.
    """

    rows: Sequence[Record]

    @classmethod
    def of(cls, rows: Iterable[Record]) -> FewMarks:
        """The marks in the order of their numbers."""
        return cls(sorted(rows, key=lambda row: row["number"]))

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

    def taken_from_others(self, apart: Collection[int]) -> dict[int, str]:
        """What something affected takes an output of and that is not affected itself, with the first that takes it.

        Args:
            apart: What is affected and whose inputs are looked at elsewhere.
        """
        marked = {row["number"] for row in self.rows}
        taken: dict[int, str] = {}
        for row in self.rows:
            if row["role"] != "affected" or row["number"] in apart:
                continue
            consumer = row["invocation_id"]
            for number in row["upstream"]:
                if number not in marked and number not in row["after"]:
                    taken[number] = min(consumer, taken.get(number, consumer))
        return taken
