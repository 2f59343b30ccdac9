"""Executions as they are exported: all calls in an order in which each comes after those that it refers to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from asyncpg import Record

from dalsegno.v1.value_pb2 import Outputs
from dalsegno_planner.core.execution import Execution, ExecutionKind
from dalsegno_planner.store import invocations
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("exports")

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ExportedCode:
    """What is known of an execution's code; `definitions` are serialized messages."""

    code_digest: str
    shaping_inputs: Sequence[str]
    definitions: Sequence[bytes]


async def code_of(connection: Connection, execution: Execution) -> ExportedCode:
    """Return what is known of the code that an execution ran."""
    header = await connection.fetchrow(SQL["header"], execution.id)
    assert header is not None
    documents = await connection.fetch(SQL["definitions"], execution.id, execution.project, execution.single_step)
    return ExportedCode(header["code_digest"], header["shaping_inputs"], [row["document"] for row in documents])


async def calls(connection: Connection, execution: Execution) -> AsyncIterator[Sequence[Record]]:
    """Yield the rows of an execution's calls, those that it reuses included, some at a time. Must run in a transaction.

    The replay of a single step has that one alone.
    """
    by_position, alone = execution.kind is ExecutionKind.FLOW, execution.single_step
    order = _Order()
    cursor = await connection.cursor(SQL["steps"], execution.id, by_position, alone)
    while rows := await cursor.fetch(_AT_ONCE):
        yield order.place(rows)
    yield order.rest()


async def taken_by_single_step(connection: Connection, execution: Execution) -> dict[int, Outputs]:
    """Return what the replay of a single step took from its source, which it does not show; nothing of any other."""
    if not execution.single_step:
        return {}
    numbers = await connection.fetchval(SQL["taken"], execution.id)
    found = await invocations.outputs(connection, execution.id, numbers)
    return {number: Outputs.FromString(data) for number, data in found.items() if data is not None}


class _Order:
    """Holds back what refers to a call that is still to come, as a new step of a replay may be numbered late."""

    def __init__(self) -> None:
        self._placed = bytearray()
        self._held: dict[int, list[Record]] = {}

    def place(self, rows: Sequence[Record]) -> list[Record]:
        """Return what can come now."""
        ready, placed = list(reversed(rows)), []
        while ready:
            one = ready.pop()
            missing = self._missing(one["upstream"])
            if missing is not None:
                self._held.setdefault(missing, []).append(one)
                continue
            number = one["number"]
            self._note(number)
            placed.append(one)
            if number in self._held:
                ready += reversed(self._held.pop(number))
        return placed

    def rest(self) -> list[Record]:
        """Return what refers to calls that the execution does not show, such as those that a replay did not make."""
        held, self._held = self._held, {}
        return [row for rows in held.values() for row in rows]

    def _missing(self, upstream: Sequence[int]) -> int | None:
        for number in upstream:
            if number >= len(self._placed) or not self._placed[number]:
                return number
        return None

    def _note(self, number: int) -> None:
        if number >= len(self._placed):
            self._placed.extend(bytes(max(number + 1, 2 * len(self._placed)) - len(self._placed)))
        self._placed[number] = 1
