"""The execution that is replayed, with all that planning asks of it before it looks at the graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from asyncpg import Record

from dalsegno_planner.core.execution import Execution, InvocationKind
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.core.selectors import Candidate, Selector, SelectorKind, matches
from dalsegno_planner.store import executions, finding, graph
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_request import ReplayRequest
from dalsegno_planner.store.sql import load

SQL = load("replays")

_COUNTED_BELOW = 5_000
"""Flows up to this size are counted; larger ones are as large as their record says."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a replay.

    Attributes:
        execution: Its record.
        code_digest: Of its flow or pipeline.
        shaping_inputs: Parameters that the shape of its graph depends on.
        next_number: The first number that no invocation has.
        lineage_length: How many entries its lineage has.
        size: How many invocations it shows.
        candidates: What the selectors of the request may mean.
        foreseen: The marks of the plan, as `FewMarks` has them, where the request says nothing but from which candidate
            it replays, and there is one; else None.
    """

    execution: Execution
    code_digest: str
    shaping_inputs: Sequence[str]
    next_number: int
    lineage_length: int
    size: int
    candidates: Sequence[Candidate]
    foreseen: Sequence[Record] | None


class _AtOnce(NamedTuple):
    """What is planned with the look at the source, as `open_plan` takes it.

    Attributes:
        selector: From where it replays, where the request says no more; else nothing is planned yet.
        alone: Whether nothing else re-executes.
        few: How many marks there may be.
    """

    selector: str | None
    alone: bool
    few: int


async def open_source(
    connection: Connection, request: ReplayRequest, selectors: Collection[Selector], few: int
) -> Source:
    """Return the execution that a request names, in one round trip where it is named by its ID.

    Args:
        connection: Where it is.
        request: What names it.
        selectors: What else the request names.
        few: How many marks are foreseen at most.

    Raises:
        UsageError: Nothing was named.
        NotFoundError: There is none, with the closest run names.
        StateError: There are several, with their IDs.
    """
    named = finding.whole_id(request.execution)
    only = _only_selector(request, selectors)
    plan = _AtOnce(only.text if only is not None else None, request.single_step, few)
    found = await _open(connection, named, selectors, plan) if named is not None else None
    while found is None:  # again where it is deleted at this moment: then there is none
        execution = await finding.find(connection, request.execution, request.project)
        found = await _open(connection, execution.id, selectors, plan)
    return found


def _only_selector(request: ReplayRequest, selectors: Collection[Selector]) -> Selector | None:
    """The selector that is all that a request says."""
    if request.chosen_mode is not Mode.FROM or len(selectors) != 1 or request.code is not None:
        return None
    (only,) = selectors
    says_more = request.rerun_changed_code or request.inputs or request.overrides or request.step_input_overrides
    return None if says_more or only.kind is SelectorKind.ALL else only


async def _open(
    connection: Connection, execution_id: UUID, selectors: Collection[Selector], plan: _AtOnce
) -> Source | None:
    wanted = graph.wanted_candidates(selectors)
    row = await connection.fetchrow(SQL["open"], execution_id, *wanted, _COUNTED_BELOW, *plan)
    if row is None:
        return None
    candidates, foreseen = _candidates(row), row["foreseen"]
    if any(one.part_of_call_id and not any(matches(one, each) for each in candidates) for one in selectors):
        candidates, foreseen = await graph.candidates(connection, execution_id, selectors), None
    return Source(
        execution=executions.of_row(row),
        code_digest=row["code_digest"],
        shaping_inputs=row["shaping_inputs"],
        next_number=row["next_number"],
        lineage_length=row["lineage_length"],
        size=row["size"],
        candidates=candidates,
        foreseen=foreseen,
    )


def _candidates(row: Record) -> list[Candidate]:
    columns = [row[f"candidate_{column}"] or () for column in ("numbers", "ids", "names", "kinds", "suppliers")]
    return [
        Candidate(number, invocation_id, name, InvocationKind(kind), call_id(supplier, number))
        for number, invocation_id, name, kind, supplier in zip(*columns, strict=True)
    ]
