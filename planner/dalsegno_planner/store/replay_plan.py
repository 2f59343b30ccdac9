"""Planning a replay: the roots, everything downstream of them, and what the user should know of the rest.

What is affected stays in memory where that is little, else in temporary tables of the connection: planning costs what
the affected part costs in a graph of any size, and a plan that affects a million invocations never leaves Postgres. The
rules are those of `core.plan`, which applies them to graphs in memory; the tests hold both against one oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dalsegno.v1.value_pb2 import FlowInputs, Inputs
from dalsegno_planner.core import problems
from dalsegno_planner.core.execution import Execution, ExecutionKind, ExecutionState
from dalsegno_planner.core.plan import (
    IMPLIED_REASONS,
    Mode,
    OnStale,
    PlanSummary,
    Reason,
    RootReason,
    check_roots_not_skipped,
    digest,
)
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.store.bindings import references, with_values
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.refusal import refusal
from dalsegno_planner.store.replay_marking import Marking, named_roots, touching_inputs
from dalsegno_planner.store.replay_marks import FEW, FewMarks
from dalsegno_planner.store.replay_names import names_of
from dalsegno_planner.store.replay_needs import NeededObject, Needs, takers
from dalsegno_planner.store.replay_request import ReplayRequest
from dalsegno_planner.store.replay_resolution import Resolved, resolve
from dalsegno_planner.store.replay_source import open_source
from dalsegno_planner.store.replay_values import fingerprint, signature_changes
from dalsegno_planner.store.replay_warnings import NAMED, Warnings, compares_code, reused_readers
from dalsegno_planner.store.sql import load
from dalsegno_planner.store.todays_graph import TodaysPlan, graph_changed, plan_today

SQL = load("replays")


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan in the temporary tables of its connection; it lives as long as the transaction.

    Attributes:
        size: How many invocations the replay will show.
        objects: What must be in the object store for it to succeed.
        few: What it affects, where that is little.
    """

    resolved: Resolved
    summary: PlanSummary
    size: int
    today: TodaysPlan | None
    objects: Sequence[NeededObject] = ()
    few: FewMarks | None = None

    @property
    def source(self) -> Execution:
        """The execution that is replayed."""
        return self.resolved.source

    @property
    def implied(self) -> tuple[Reason, ...]:
        """The reason that whatever re-executes has, in modes that name what does not."""
        reason = IMPLIED_REASONS.get(self.resolved.mode)
        return (Reason(reason),) if reason is not None else ()


async def make_plan(connection: Connection, request: ReplayRequest, few: int = FEW) -> Plan:
    """Plan a replay and validate all of it. Must run in a transaction, which the plan belongs to.

    Args:
        connection: Where the source is, and where the plan stays.
        request: The replay.
        few: Up to so many invocations are planned in memory, more in Postgres.

    Raises:
        UsageError: The request is wrong; with every problem.
        StateError: It does not fit the source.
        NotFoundError: The source, or an artifact, does not exist.
        DivergenceError: Today's graph or arguments do not fit.
    """
    return await _Planning(connection, await _resolved(connection, request, few), few).run()


async def plan_of_few(connection: Connection, request: ReplayRequest) -> Plan | None:
    """Plan as `make_plan` does, without a transaction: nothing is written.

    Returns:
        None where the roots are not all named, or much is affected.
    """
    return await _Planning(connection, await _resolved(connection, request, FEW), FEW).run_few()


async def _resolved(connection: Connection, request: ReplayRequest, few: int) -> Resolved:
    names = names_of(request)
    source = await open_source(connection, request, names.selectors, few)
    _check_source(source.execution, request)
    resolved = await resolve(connection, source, request, names)
    found = [*resolved.problems, *_unknown_inputs(resolved)]
    if found:
        found += await _Planning(connection, resolved, few).skipped_roots()
        raise refusal(f"the replay of {source.execution.name}", found)
    _check_signature(resolved)
    return resolved


def _check_source(source: Execution, request: ReplayRequest) -> None:
    """Refuse what cannot be replayed at all, or not with that code. What else is wrong is not known then."""
    found: list[Problem] = []
    if source.state in (ExecutionState.PENDING, ExecutionState.RUNNING):
        why = f"{source.name} is {source.state}; wait until it has ended, or cancel it, and replay it then"
        found.append(problems.state("SOURCE_RUNNING", "execution", why))
    if source.single_step and not request.single_step:
        found.append(
            problems.state(
                "SINGLE_STEP",
                "execution",
                f"{source.name} replays a single step; replay that step again with step.replay, or replay the "
                f"execution that it comes from, {source.source_id}",
            )
        )
    code = request.code
    if code is not None and code.name and code.name != source.flow and not request.single_step:
        found.append(
            problems.usage(
                "WRONG_CODE", "code.definition", f"{source.name} is a run of {source.flow!r}, not of {code.name!r}"
            )
        )
    if code is not None and code.steps is not None and source.kind is ExecutionKind.FLOW:
        found.append(problems.usage("WRONG_CODE", "code.steps", f"{source.flow!r} is a flow and has no fixed graph"))
    if found:
        raise refusal(f"the replay of {source.name}", found)


def _check_signature(resolved: Resolved) -> None:
    definition = resolved.code.todays_flow
    if definition is None or not resolved.is_flow:
        return
    recorded = FlowInputs.FromString(resolved.source.inputs).values
    changes = signature_changes(definition, recorded, resolved.inputs)
    if changes:
        raise graph_changed(resolved, changes)


def _unknown_inputs(resolved: Resolved) -> list[Problem]:
    """Parameters that today's graph reads and that the replay does not have."""
    known = {*FlowInputs.FromString(resolved.source.inputs).values, *resolved.inputs}
    return [
        problems.usage(
            "UNKNOWN_INPUT", "code.steps", f"{row.invocation_id} reads the input {name!r}, which was not recorded"
        )
        for row in resolved.todays_steps.values()
        for name in row.reads_inputs
        if name not in known
    ]


class _Planning:
    def __init__(self, connection: Connection, resolved: Resolved, most: int) -> None:
        self._connection = connection
        self._most = most
        self._resolved = resolved
        self._request = resolved.request
        self._source = resolved.source
        self._marking = Marking(connection, resolved)
        self._objects: Sequence[NeededObject] = ()
        self._not_looked_for = 0
        self._few: FewMarks | None = None

    async def run(self) -> Plan:
        today = None
        if self._request.code is not None and self._request.code.steps is not None:
            await self._connection.execute(SQL["begin_marks"])
            today = await plan_today(self._connection, self._resolved, self._resolved.facts.next_number)
            await self._marking.decided(today)
            rows = self._request.code.steps
            known = {(row.module, row.name, row.code_digest) for row in rows if row.code_digest}
            self._marking.todays_code = sorted(known)
        else:
            self._few = await self._few_marks() or await self._marked()
        return await self._plan(today)

    async def run_few(self) -> Plan | None:
        self._few = await self._few_marks()
        return await self._plan(None) if self._few is not None else None

    async def _plan(self, today: TodaysPlan | None) -> Plan:
        counts = self._few.counts() if self._few is not None else await self._marking.counts()
        await self._check(today, counts["affected"])
        return await self._finished(counts, today)

    async def _few_marks(self) -> FewMarks | None:
        """What re-executes, in one round trip, where the roots are known and that is little."""
        if not self._names_its_roots:
            return None
        rows = self._resolved.foreseen
        if rows is None:
            rows = await self._connection.fetch(
                SQL["plan_of_few"],
                self._source.id,
                *named_roots(self._resolved),
                list(self._resolved.targets),
                list(self._resolved.targets.values()),
                self._request.single_step,
                self._most,
                *self._looked_for(),
            )
        return FewMarks.of(rows) if rows else None

    async def _marked(self) -> FewMarks | None:
        """Mark what re-executes in the temporary tables, and read it from there where it is little after all."""
        if await self._marking.affected() > self._most:
            return None
        overridden = list(self._resolved.targets)
        rows = await self._connection.fetch(SQL["few_marks"], self._source.id, overridden, *self._looked_for())
        return FewMarks.of(rows)

    @property
    def _names_its_roots(self) -> bool:
        """Whether no roots are found by looking at much, in the recorded graph."""
        if self._request.code is not None and self._request.code.steps is not None:
            return False
        mode, many = self._resolved.mode, self._resolved.chosen_names
        if self._request.single_step:
            return not many
        skips = mode.keeps_only_what_is_named or mode is Mode.SKIP_SUCCESSFUL
        return not (skips or many or self._request.rerun_changed_code or touching_inputs(self._resolved))

    def _looked_for(self) -> tuple[object, ...]:
        """What is read with few marks: the arguments of `few_marks` after those of what is overridden."""
        resolved, alone = self._resolved, self._request.single_step
        written = self._written_upstream(None)
        taken = takers(written)
        return (
            not resolved.is_flow,
            resolved.mode is not Mode.EVERYTHING,
            list(written),
            list(taken),
            list(taken.values()),
            compares_code(resolved),
            *self._marking.code_columns,
            [] if alone else sorted(resolved.inputs),
        )

    async def skipped_roots(self) -> list[Problem]:
        """What is skipped though the request makes a root of it; for a request that is refused in any case."""
        if not self._resolved.kept or self._resolved.todays_steps:
            return []
        async with self._connection.transaction():
            await self._marking.affected()
            return await self._check_kept()

    async def _check_kept(self) -> list[Problem]:
        if not self._resolved.kept:
            return []
        rows = await self._connection.fetch(SQL["roots_among"], list(self._resolved.kept))
        roots = {
            row["number"]: [
                Reason(RootReason(one), cause) for one, cause in zip(row["reasons"], row["causes"], strict=True)
            ]
            for row in rows
        }
        return check_roots_not_skipped(self._resolved.kept, roots)

    async def _check(self, today: TodaysPlan | None, affected: int) -> None:
        found = await self._check_kept()
        if self._request.on_stale is OnStale.FAIL and not self._resolved.is_flow:
            found += await self._stale_readers()
        if not found:
            found += await self._needs(today, affected)
        if found:
            raise refusal(f"the replay of {self._source.name}", found)

    async def _stale_readers(self) -> list[Problem]:
        rows = await reused_readers(self._connection, self._resolved, self._few)
        return [
            problems.state(
                "STALE_INPUTS",
                "on_stale",
                f"{row['invocation_id']} is reused and reads an overridden input; re-execute it, or allow stale inputs",
            )
            for row in rows[:NAMED]
        ]

    async def _needs(self, today: TodaysPlan | None, affected: int) -> list[Problem]:
        """Outputs that something affected takes, and that nobody has; what is in the object store is only noted."""
        needs = Needs(self._connection, self._resolved, self._written_upstream(today), affected, self._few)
        await needs.look_up()
        self._objects, self._not_looked_for = needs.objects, needs.left_out
        return needs.problems

    def _written_upstream(self, today: TodaysPlan | None) -> Mapping[int, tuple[str, frozenset[tuple[int, str]]]]:
        """What the affected steps take whose inputs are not those recorded."""
        if today is not None:
            return {
                row.number: (row.invocation_id, references(Inputs.FromString(row.inputs)).outputs) for row in today.rows
            }
        found: dict[int, tuple[str, frozenset[tuple[int, str]]]] = {}
        for number, one in self._resolved.recorded_step_inputs.items():
            assert one.row is not None
            inputs = with_values(
                Inputs.FromString(one.row.inputs), {name: value.payload for name, value in one.values.items()}
            )
            found[number] = (one.invocation_id, references(inputs).outputs)
        return found

    async def _finished(self, counts: Mapping[str, int], today: TodaysPlan | None) -> Plan:
        new = len(today.new) if today is not None else 0
        removed = len(today.removed) if today is not None else 0
        affected = counts["affected"] + new
        roots = affected if self._resolved.mode in IMPLIED_REASONS else counts["roots"] + new
        size = affected if self._request.single_step else self._resolved.facts.size
        reused = max(size - counts["affected"] - counts["waits"] - removed, 0)
        summary = PlanSummary(
            digest=digest(self._facts(counts, today)),
            root_count=roots,
            affected_count=affected,
            reused_count=reused,
            warnings=tuple(await self._warnings(today)),
        )
        return Plan(self._resolved, summary, size + new - removed, today, self._objects, self._few)

    def _facts(self, counts: Mapping[str, int], today: TodaysPlan | None) -> Mapping[str, object]:
        """What makes this plan. The sets of roots and affected come as their sizes and hashes."""
        resolved = self._resolved
        return {
            "source": str(self._source.id),
            "mode": resolved.mode.value,
            "on_stale": self._request.on_stale.value,
            "single_step": self._request.single_step,
            "counts": counts,
            "new": sorted(row.invocation_id for row in today.rows if row.number in today.new) if today else [],
            "inputs": {name: fingerprint(one.payload) for name, one in resolved.inputs.items()},
            "overrides": {str(number): fingerprint(one.value.payload) for number, one in resolved.overrides.items()},
            "step_inputs": {
                one.invocation_id: {name: fingerprint(value.payload) for name, value in one.values.items()}
                for one in resolved.step_inputs.values()
            },
        }

    async def _warnings(self, today: TodaysPlan | None) -> list[str]:
        # Today's graph says of all its steps which code they have; else executors know more.
        project = self._source.project if today is None else None
        warnings = Warnings(self._connection, self._resolved, self._marking.code_columns, project, self._few)
        return await warnings.told(self._not_looked_for)
