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
"""How many invocations are named in one warning, or refusal; the queries return one more, if there are more."""


def compares_code(resolved: Resolved) -> bool:
    """Whether reused steps whose code has changed are warned about: there are some, and they do not re-execute."""
    request = resolved.request
    return not (request.single_step or request.rerun_changed_code or resolved.mode is Mode.EVERYTHING)


async def reused_readers(connection: Connection, resolved: Resolved, few: FewMarks | None) -> Sequence[Record]:
    """Reused steps that read an overridden flow input: one more than are named."""
    if not resolved.inputs or resolved.request.single_step:
        return ()
    if few is not None:
        return few.reading
    return await connection.fetch(SQL["reused_readers"], resolved.source.id, sorted(resolved.inputs))


class Warnings:
    """Finds what to warn of, in the transaction and the temporary tables that the plan was made in.

    Args:
        connection: Of the plan.
        resolved: The request.
        todays_code: Modules, names and digests of steps as they are known to be today.
        project: Where executors know the code of the others; None where there are no others.
        few: What is affected, where that is little.
    """

    def __init__(
        self,
        connection: Connection,
        resolved: Resolved,
        todays_code: tuple[list[str], list[str], list[str]],
        project: str | None,
        few: FewMarks | None,
    ) -> None:
        self._connection = connection
        self._resolved = resolved
        self._request = resolved.request
        self._source = resolved.source
        self._todays_code = todays_code
        self._project = project
        self._few = few

    async def told(self, not_looked_for: int) -> list[str]:
        """Return them all.

        Args:
            not_looked_for: Of how many steps values were not looked for in the object store.
        """
        told = []
        if not self._request.single_step:
            told += _warning(await self._with_other_code(), "reused, though the code of the step has changed since")
            readers = await reused_readers(self._connection, self._resolved, self._few)
            told += _warning(readers, self._fate_of_readers())
            told += _warning(await self._overridden_anyway(), "re-executes, though its output is overridden anyway")
        if not_looked_for:
            told.append(
                f"values of {not_looked_for:,} more steps were not looked for in the object store; where one is "
                "gone, what reads it fails"
            )
        return told

    async def _with_other_code(self) -> Sequence[Record]:
        if not compares_code(self._resolved):
            return ()
        if self._few is not None:
            return self._few.changed
        columns = (self._project, *self._todays_code)
        return await self._connection.fetch(SQL["reused_with_other_code"], self._source.id, *columns)

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
    listed = ", ".join(names[:NAMED]) + (" and more" if len(names) > NAMED else "")
    return [f"{listed}: {what}"] if names else []
