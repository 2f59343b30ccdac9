"""What the user of a plan should know of what it reuses, and of what it has not looked at: warnings, never silence."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from dalsegno_planner.core.plan import Mode, OnStale
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_marks import FewMarks
from dalsegno_planner.store.replay_resolution import Resolved
from dalsegno_planner.store.sql import load

SQL = load("replays")

NAMED = 20
"""How many invocations are named in one warning, or refusal."""

_CALLS_LOOKED_AT = 1_000
"""How many reused calls, of all steps, are compared with today's code: more would cost what the graph costs."""


async def reused_readers(connection: Connection, resolved: Resolved, limit: int) -> Sequence[Record]:
    """Reused steps that read an overridden flow input."""
    if not resolved.inputs or resolved.request.single_step:
        return ()
    return await connection.fetch(SQL["reused_readers"], resolved.source.id, sorted(resolved.inputs), limit)


class Warnings:
    """Finds what to warn of, in the transaction and the temporary tables that the plan was made in.

    Args:
        connection: Of the plan.
        resolved: The request.
        todays_code: Modules, names and digests of the steps that there are today.
        few: What is affected, where that is little.
    """

    def __init__(
        self,
        connection: Connection,
        resolved: Resolved,
        todays_code: Sequence[tuple[str, str, str]],
        few: FewMarks | None,
    ) -> None:
        self._connection = connection
        self._resolved = resolved
        self._request = resolved.request
        self._source = resolved.source
        self._todays_code = todays_code
        self._few = few

    async def told(self, not_looked_for: int) -> list[str]:
        """Return them all.

        Args:
            not_looked_for: Of how many steps values were not looked for in the object store.
        """
        told = []
        if not self._request.single_step:
            told += await self._warnings_of_code()
            told += _warning(await reused_readers(self._connection, self._resolved, NAMED + 1), self._fate_of_readers())
            told += _warning(await self._overridden_anyway(), "re-executes, though its output is overridden anyway")
        if not_looked_for:
            told.append(
                f"values of {not_looked_for:,} more steps were not looked for in the object store; where one is "
                "gone, what reads it fails"
            )
        return told

    async def _warnings_of_code(self) -> list[str]:
        if not self._todays_code or self._request.rerun_changed_code or self._resolved.mode is Mode.EVERYTHING:
            return []
        most = max(NAMED + 1, _CALLS_LOOKED_AT // len(self._todays_code))
        columns = [list(column) for column in zip(*self._todays_code, strict=True)]
        rows = await self._connection.fetch(SQL["reused_with_other_code"], self._source.id, *columns, most)
        left_out = sorted({row["name"] for row in rows if row["left_out"]})
        told = _warning(
            [row for row in rows if not row["left_out"]], "reused, though the code of the step has changed since"
        )
        if left_out:
            told.append(
                f"{_listed(left_out)}: the first {most:,} reused calls were compared with today's code, and none of "
                "those after them; rerun_changed_code looks at all"
            )
        return told

    def _fate_of_readers(self) -> str:
        """What becomes of reused steps that read an overridden input. In a flow it is the body that finds out."""
        match self._request.on_stale:
            case OnStale.RERUN:
                return "reads a flow input that is overridden, and re-executes where that changes what it is given"
            case OnStale.FAIL:
                return "reads a flow input that is overridden, and the replay fails where that changes what it is given"
            case OnStale.REUSE:
                return "reused, though it reads a flow input that is overridden"

    async def _overridden_anyway(self) -> Sequence[Record]:
        if self._few is not None:
            return self._few.overridden_anyway
        if self._resolved.overrides or self._source.source_id is not None:
            return await self._connection.fetch(SQL["overridden_anyway"], self._source.id)
        return ()


def _warning(rows: Sequence[Record], what: str) -> list[str]:
    names = [row["invocation_id"] for row in rows]
    return [f"{_listed(names)}: {what}"] if names else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" and more" if len(names) > NAMED else "")
