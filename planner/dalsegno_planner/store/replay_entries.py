"""The entries of a plan, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from asyncpg import Record

from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.ids import InvocationId, Number, call_id
from dalsegno_planner.core.plan import PlanEntry, Reason, RootReason
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_plan import SQL, Plan

_KINDS = {kind.value: kind for kind in InvocationKind}


class View(StrEnum):
    """Which entries of a plan are read."""

    ROOTS = "roots"
    AFFECTED = "affected"
    REUSED = "reused"
    WAITS = "waits"


async def entries(
    connection: Connection, plan: Plan, view: View, after: int, limit: int
) -> tuple[list[PlanEntry], int | None]:
    """Return entries of a plan by number, from the transaction that it was made in.

    Returns:
        The page, and the number after which the next one starts; None where this is the last.
    """
    if view is View.REUSED:
        return await _reused_entries(connection, plan, after, limit)
    only_roots = view is View.ROOTS and not plan.implied
    if plan.few is not None:
        rows = plan.few.page(only_roots, view is View.WAITS, after, limit)
    else:
        roles = ["wait", "affected"] if view is View.WAITS else ["affected"]
        rows = await connection.fetch(
            SQL["page_of_marks"], plan.source.id, roles, only_roots, view is View.WAITS, after, limit
        )
    implied = plan.implied
    found = [_entry(row, implied) for row in rows]
    if len(rows) < limit and view is not View.WAITS:
        found += _new_entries(plan, after, limit - len(rows))
    return found, found[-1].number if len(found) == limit else None


async def _reused_entries(
    connection: Connection, plan: Plan, after: int, limit: int
) -> tuple[list[PlanEntry], int | None]:
    if plan.resolved.request.single_step:
        return [], None
    if plan.few is not None:
        await plan.few.store(connection)
    overridden = list(plan.resolved.overrides)
    rows = await connection.fetch(SQL["page_of_reused"], plan.source.id, overridden, after, limit)
    found = [
        PlanEntry(
            number=row["number"],
            invocation_id=row["invocation_id"],
            name=row["name"],
            kind=_KINDS[row["kind"]],
            call_id=call_id(row["supplier_id"], row["number"]),
            recorded_seconds=row["seconds"],
            output_overridden=row["overridden"],
        )
        for row in rows
        if not row["hidden"]
    ]
    return found, rows[-1]["number"] if len(rows) == limit else None


def _entry(row: Record, implied: Sequence[Reason]) -> PlanEntry:
    is_root = row["role"] == "affected" and bool(row["reasons"] or implied)
    return PlanEntry(
        row["number"],
        row["invocation_id"],
        row["name"],
        _KINDS[row["kind"]],
        reasons=_reasons(row, implied) if is_root else (),
        recorded_seconds=row["seconds"],
        output_overridden=row["overridden"],
    )


def _reasons(row: Record, implied: Sequence[Reason]) -> tuple[Reason, ...]:
    told = zip(row["reasons"] or (), row["causes"] or (), strict=True)
    return tuple(sorted({*implied, *(Reason(RootReason(one), cause) for one, cause in told)}))


def _new_entries(plan: Plan, after: int, limit: int) -> list[PlanEntry]:
    if plan.today is None:
        return []
    new = [row for row in plan.today.rows if row.number in plan.today.new and row.number > after]
    return [
        PlanEntry(
            number=Number(row.number),
            invocation_id=InvocationId(row.invocation_id),
            name=row.name,
            kind=InvocationKind.STEP,
            reasons=plan.today.decision.roots[Number(row.number)],
        )
        for row in sorted(new, key=lambda row: row.number)[:limit]
    ]
