"""The marks of a plan of many: its roots and what is affected, in the temporary tables of its connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dalsegno_planner.core.plan import Mode, OnStale, RootReason
from dalsegno_planner.store import graph
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_marks import FEW
from dalsegno_planner.store.replay_resolution import Resolved
from dalsegno_planner.store.sql import load
from dalsegno_planner.store.todays_graph import TodaysPlan

SQL = load("replays")


class Marking:
    """Marks what re-executes, in the transaction of a plan.

    Args:
        connection: Of the plan.
        resolved: The request.

    Attributes:
        todays_code: Modules, names and digests of steps as they are known to be today.
    """

    def __init__(self, connection: Connection, resolved: Resolved) -> None:
        self._connection = connection
        self._resolved = resolved
        self._request = resolved.request
        self._source = resolved.source
        self.todays_code: Sequence[tuple[str, str, str]] = resolved.code.todays_digests()

    async def affected(self) -> int:
        """Mark all roots, and what re-executes with them, in the temporary tables; returns how many marks there are."""
        resolved = self._resolved
        await self._connection.execute(SQL["begin_marks"])
        await self._insert_roots()
        scope = "others" if resolved.mode.keeps_only_what_is_named else "descendants"
        marked: int = await self._connection.fetchval(
            SQL["mark_affected"],
            self._source.id,
            *named_roots(resolved),
            list(resolved.targets),
            list(resolved.targets.values()),
            resolved.mode is Mode.SKIP_SUCCESSFUL,
            "roots" if self._request.single_step else scope,
            list(resolved.kept),
        )
        return marked

    async def decided(self, today: TodaysPlan) -> None:
        """Mark what today's graph decides, after ``begin_marks``."""
        roots = [
            (number, one) for number, why in today.decision.roots.items() for one in why if number not in today.new
        ]
        await self._insert_root_rows([(number, one.reason.value, one.cause) for number, one in roots])
        await self._connection.execute(SQL["affect_numbers"], sorted(today.decision.affected - today.new), "affected")
        await self._connection.execute(SQL["affect_numbers"], sorted(today.removed), "removed")
        await self._connection.execute(SQL["mark_overridden"], list(self._resolved.overrides))
        await self._connection.execute(SQL["mark_overridden_before"], self._source.id)

    async def counts(self) -> Mapping[str, int]:
        """How many roots, affected and waits are marked, and what identifies the sets."""
        counts = await self._connection.fetchrow(SQL["counts"])
        assert counts is not None
        if counts["affected"] > FEW:
            await self._connection.execute(SQL["expect_much"])
            await self._connection.execute(SQL["analyze"])
        return dict(counts)

    @property
    def code_columns(self) -> tuple[list[str], list[str], list[str]]:
        """`todays_code` by columns."""
        return (
            [module for module, _, _ in self.todays_code],
            [name for _, name, _ in self.todays_code],
            [code for _, _, code in self.todays_code],
        )

    async def _insert_root_rows(self, rows: Sequence[tuple[int, str, str]]) -> None:
        if rows:
            await self._connection.execute(SQL["root_numbers"], *map(list, zip(*rows, strict=True)))

    async def _find_todays_code(self) -> None:
        """What the client sent counts; the rest is what executors have."""
        sent = self.todays_code
        known = await graph.todays_steps(self._connection, self._source.project, self._source.id)
        places = {(module, name) for module, name, _ in sent}
        self.todays_code = [*sent, *(one for one in known if one[:2] not in places)]

    async def _insert_roots(self) -> None:
        """Insert the roots that are found by looking at much."""
        resolved, source = self._resolved, self._source.id
        if resolved.mode.keeps_only_what_is_named or resolved.chosen_names:
            await self._connection.execute(SQL["expect_much"])
        for selector in resolved.chosen_names:
            why = (RootReason.FROM.value, selector.text)
            await self._connection.execute(SQL["root_name"], source, selector.value, *why)
        if self._request.single_step:
            return
        if self._request.rerun_changed_code:
            await self._find_todays_code()
            await self._connection.execute(
                SQL["root_changed"], source, *self.code_columns, RootReason.CODE_CHANGED.value
            )
        touching = touching_inputs(resolved)
        if touching:
            reason = RootReason.FLOW_INPUT_OVERRIDE.value
            await self._connection.execute(SQL["root_readers"], source, touching, reason)
        if resolved.mode is Mode.SKIP_SUCCESSFUL and self._source.source_id is not None:
            await self._connection.execute(SQL["root_replaced"], source, RootReason.NOT_COMPLETED.value)


def named_roots(resolved: Resolved) -> tuple[list[int], list[str], list[str]]:
    """Numbers of roots that the request names, with their reasons and causes."""
    roots: list[tuple[int, RootReason, str]] = [
        (number, RootReason.FROM, text) for number, text in resolved.chosen.items()
    ]
    if not resolved.request.single_step:
        replaced = resolved.recorded_step_inputs.items()
        roots += [(number, RootReason.STEP_INPUT_OVERRIDE, one.key) for number, one in replaced]
    return [one[0] for one in roots], [one[1].value for one in roots], [one[2] for one in roots]


def touching_inputs(resolved: Resolved) -> list[str]:
    """Overridden inputs whose readers re-execute by plan. A flow's body decides for itself when it runs."""
    reruns = resolved.request.on_stale is OnStale.RERUN and not resolved.is_flow
    return sorted(resolved.inputs) if reruns or resolved.mode is Mode.SKIP_SUCCESSFUL else []
