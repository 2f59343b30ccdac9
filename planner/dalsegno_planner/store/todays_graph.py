"""The replay of a pipeline with today's graph: what is kept of the recorded one, and what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dalsegno.errors import DivergenceError, DivergenceKind, Problem
from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.value_pb2 import Binding, Inputs
from dalsegno_planner.core.changes import Shape, differences
from dalsegno_planner.core.graph import Graph, Node
from dalsegno_planner.core.ids import InvocationId, Number
from dalsegno_planner.core.overrides import DEFAULT_OUTPUT
from dalsegno_planner.core.plan import Choice, Decision, Mode, decide
from dalsegno_planner.store import graph
from dalsegno_planner.store.bindings import order, references, renumber
from dalsegno_planner.store.graph import GraphRow
from dalsegno_planner.store.invocations import InvocationRow
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_resolution import Resolved


@dataclass(frozen=True, slots=True)
class TodaysPlan:
    """What today's graph makes of a replay. All numbers are those of the recorded graph, continued for new steps.

    Attributes:
        decision: The roots and what is affected, new steps included.
        rows: The affected steps as they are today.
        new: The numbers of those that are not.
        removed: Recorded steps that today's graph does not have.
        result: The shape of what the pipeline returns.
    """

    decision: Decision
    rows: Sequence[InvocationRow]
    new: frozenset[Number]
    removed: frozenset[Number]
    result: bytes | None


async def plan_today(connection: Connection, resolved: Resolved, next_number: int) -> TodaysPlan:
    """Plan on both graphs together: what is downstream of a root in either is affected.

    Raises:
        DivergenceError: Something reused has changed; with every difference.
    """
    code = resolved.request.code
    assert code is not None
    assert code.steps is not None
    recorded = await graph.all_rows(connection, resolved.source.id)
    today = _Today(recorded, code.steps, next_number)
    nodes = {row.number: row.node() for row in recorded}
    merged = today.merged(nodes)
    decision = decide(merged, _choice(resolved, today, recorded, merged))
    removed = frozenset(nodes) - frozenset(today.numbers.values())
    _check_unchanged(resolved, today, recorded, decision)
    affected = decision.affected - removed
    return TodaysPlan(
        Decision({number: why for number, why in decision.roots.items() if number in affected}, affected),
        [row for row in today.rows if row.number in affected],
        today.new & affected,
        removed,
        today.result(code.result),
    )


class _Today:
    """Today's steps under the numbers of the recorded graph."""

    def __init__(self, recorded: Sequence[GraphRow], steps: Sequence[InvocationRow], next_number: int) -> None:
        self._recorded = {row.invocation_id: row for row in recorded}
        self.numbers: dict[str, Number] = {}
        for row in steps:
            known = self._recorded.get(InvocationId(row.invocation_id))
            self.numbers[row.invocation_id] = Number(next_number) if known is None else known.number
            next_number += known is None
        self._by_place = {row.number: self.numbers[row.invocation_id] for row in steps}
        self.new = frozenset(number for one, number in self.numbers.items() if one not in self._recorded)
        self.rows = [self._renumbered(row) for row in steps]

    def merged(self, nodes: Mapping[Number, Node]) -> Graph:
        """Both graphs in one: each step has the upstream of either."""
        merged = dict(nodes)
        for row in self.rows:
            number = Number(row.number)
            known = nodes.get(number)
            after = frozenset(map(Number, row.after))
            takes = frozenset(map(Number, row.upstream)) - after
            merged[number] = Node(
                number=number,
                invocation_id=InvocationId(row.invocation_id),
                name=row.name,
                takes=takes | known.takes if known else takes,
                after=after | known.after if known else after,
                succeeded=known is not None and known.succeeded,
                overridden=known is not None and known.overridden,
                reads_inputs=frozenset(row.reads_inputs),
                module=row.module,
                code_digest=row.code_digest,
            )
        return Graph.of(merged.values())

    def _renumbered(self, row: InvocationRow) -> InvocationRow:
        """A step of today under its number in the replay, with the overrides that it has had."""
        inputs = Inputs.FromString(row.inputs)
        for binding in inputs.bindings.values():
            renumber(binding, self._by_place.__getitem__)
        inputs.comes_after[:] = [self._by_place[one] for one in inputs.comes_after]
        known = self._recorded.get(InvocationId(row.invocation_id))
        if known is not None:
            _carry_overrides(inputs, known)
        number = self.numbers[row.invocation_id]
        upstream, after = order(inputs, (self._by_place[one] for one in row.after))
        return row._replace(
            number=number,
            position=number if known is None else known.position,
            upstream=upstream,
            after=after,
            reads_inputs=sorted(references(inputs).flow_inputs),
            inputs=inputs.SerializeToString(),
        )

    def result(self, shape: bytes | None) -> bytes | None:
        """What the pipeline returns, in terms of the replay's numbers."""
        if shape is None:
            return None
        binding = Binding.FromString(shape)
        renumber(binding, self._by_place.__getitem__)
        return binding.SerializeToString()

    def shapes(self) -> dict[str, Shape]:
        """What is compared of today's steps."""
        ids = {row.number: row.invocation_id for row in self.rows}
        return {row.invocation_id: _shape(row, ids, ()) for row in self.rows}


def _carry_overrides(inputs: Inputs, recorded: GraphRow) -> None:
    """Keep the inputs that an earlier replay has overridden: they are part of what is replayed."""
    was = Inputs.FromString(recorded.inputs).bindings if recorded.overridden_inputs else {}
    for name in recorded.overridden_inputs:
        if name in inputs.bindings and name in was:
            inputs.bindings[name].CopyFrom(was[name])


def _choice(resolved: Resolved, today: _Today, recorded: Sequence[GraphRow], merged: Graph) -> Choice:
    digests = {row.invocation_id: row.code_digest for row in resolved.todays_steps.values()}
    changed = (
        frozenset(
            row.number
            for row in recorded
            if row.invocation_id in digests and (not row.code_digest or digests[row.invocation_id] != row.code_digest)
        )
        if resolved.request.rerun_changed_code
        else frozenset()
    )
    named = {selector.value: selector.text for selector in resolved.chosen_names}
    chosen = dict(resolved.chosen)
    chosen.update({node.number: named[node.name] for node in merged.steps if node.name in named})
    skips_successful = resolved.mode is Mode.SKIP_SUCCESSFUL
    return Choice(
        mode=resolved.mode,
        chosen=chosen,
        kept=frozenset(resolved.kept),
        overridden={number: one.key for number, one in resolved.overrides.items()},
        step_inputs={
            today.numbers.get(one, Number(0)): given.key
            for one, given in resolved.step_inputs.items()
            if one in today.numbers
        },
        changed=changed,
        touching_inputs=frozenset(resolved.inputs) if skips_successful else frozenset(),
        new=today.new,
    )


def _check_unchanged(resolved: Resolved, today: _Today, recorded: Sequence[GraphRow], decision: Decision) -> None:
    ids: dict[int, str] = {row.number: row.invocation_id for row in recorded}
    was: dict[str, Shape] = {
        row.invocation_id: _shape(row, ids, row.output_names())
        for row in recorded
        # What is asked to be skipped must be reused: that a new step comes before it makes it another graph.
        if row.number not in decision.affected or row.number in resolved.kept
    }
    found = differences(was, today.shapes(), was)
    if found:
        raise graph_changed(resolved, found)


def graph_changed(resolved: Resolved, found: Sequence[str]) -> DivergenceError:
    """The error for code that does not fit what was recorded."""
    source = resolved.source
    return DivergenceError(
        f"today's code of {source.flow} does not fit what {source.name} recorded, and nothing was created; replay "
        "without skipping what has changed, or mend the code",
        kind=DivergenceKind.GRAPH_CHANGED,
        reason="GRAPH_CHANGED",
        fields={"execution": str(source.id), "kind": DivergenceKind.GRAPH_CHANGED.value},
        problems=[Problem("", text) for text in found],
    )


def _shape(row: GraphRow | InvocationRow, ids: Mapping[int, str], recorded_outputs: Sequence[str]) -> Shape:
    declared = tuple(StepOptions.FromString(row.options).outputs)
    return Shape(
        name=row.name,
        outputs=declared or tuple(recorded_outputs) or (DEFAULT_OUTPUT,),
        takes=frozenset(
            (ids[number], output)
            for number, output in references(Inputs.FromString(row.inputs)).outputs
            if number in ids
        ),
        after=frozenset(ids[number] for number in row.after if number in ids),
    )
