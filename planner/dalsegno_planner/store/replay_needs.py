"""What the affected steps of a plan need beside each other: outputs, values and inputs that must still be there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from asyncpg import Record

from dalsegno.v1.value_pb2 import FlowInputs, Inputs, Outputs, Payload
from dalsegno_planner.core import problems
from dalsegno_planner.core.overrides import input_field, override_field, step_input_field
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.core.problems import Problem, ProblemKind
from dalsegno_planner.store import graph
from dalsegno_planner.store.bindings import leaves
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_marks import FewMarks
from dalsegno_planner.store.replay_resolution import Resolved
from dalsegno_planner.store.sql import load

SQL = load("replays")

MOST_OBJECTS = 1_000
"""How many objects of one plan are looked for, and how many steps with such: each is a question to the store."""

_LOOKED_INTO = 10_000
"""From so many affected steps on, those with objects in their inputs are found by their index."""

_CONSUMERS = 200
_MOST = 4
"""One in so many is most: of an execution's invocations, those that are affected."""


@dataclass(frozen=True, slots=True)
class NeededObject:
    """An object that an affected step needs, and the problem of its being gone."""

    key: str
    problem: Problem


class Needs:
    """Looks up what a plan needs, in the transaction and the temporary tables that it was made in.

    Args:
        connection: Of the plan.
        resolved: The request.
        written: What steps take whose inputs are not those recorded: the step's ID, and numbers and names of outputs.
        affected: How many recorded invocations are affected.
        few: Those, where they are few.
    """

    def __init__(
        self,
        connection: Connection,
        resolved: Resolved,
        written: Mapping[int, tuple[str, frozenset[tuple[int, str]]]],
        affected: int,
        few: FewMarks | None,
    ) -> None:
        self._connection = connection
        self._resolved = resolved
        self._source = resolved.source
        self._written = written
        self._affected = affected
        self._few = few
        self.problems: list[Problem] = []
        self.objects: list[NeededObject] = []
        self.left_out = 0
        """Of how many steps values are not looked for."""
        self._keys: set[str] = set()

    async def look_up(self) -> None:
        """Find outputs that nobody has, and the objects that must be in the store."""
        self._given()
        if self._resolved.mode is not Mode.EVERYTHING:
            await self._recorded_outputs()
        await self._flow_inputs()
        if not self._resolved.is_flow:
            await self._recorded_values()

    async def _store_marks(self) -> None:
        """Few marks are not in the temporary tables yet."""
        if self._few is not None:
            await self._few.store(self._connection)

    def _need(self, payload: Payload, problem: Problem) -> None:
        if payload.object_key:
            self._keys.add(payload.object_key)
            self.objects.append(NeededObject(payload.object_key, problem))

    def _need_of_step(self, needed: Iterable[tuple[Payload, Problem]]) -> None:
        """Need what a step takes or has, all of it or nothing: there may be very many of them."""
        held = [(payload, problem) for payload, problem in needed if payload.object_key]
        if len(self._keys.union(payload.object_key for payload, _ in held)) > MOST_OBJECTS:
            self.left_out += 1
            return
        for payload, problem in held:
            self._need(payload, problem)

    def _given(self) -> None:
        """Artifacts that the request names. Its plain values are stored only when it is known to be right."""
        given = [(input_field(name), one) for name, one in self._resolved.inputs.items()]
        given += [(override_field(one.key), one.value) for one in self._resolved.overrides.values()]
        for steps in self._resolved.step_inputs.values():
            given += [(step_input_field(steps.key, name), one) for name, one in steps.values.items()]
        for field, value in given:
            if value.artifact_id is not None:
                why = f"the content of the artifact {value.artifact_id} is gone from the object store"
                self._need(value.payload, problems.not_found("OBJECT_NOT_FOUND", field, why))

    async def _recorded_outputs(self) -> None:
        needed = self._few.needed if self._few is not None else await self._needed_of_many()
        for row in needed:
            await self._recorded_output(row)

    async def _needed_of_many(self) -> Sequence[Record]:
        source, overridden, apart = self._source.id, list(self._resolved.overrides), sorted(self._written)
        # Which end to look from is a matter of speed alone.
        few_reused = self._affected * _MOST > self._source.invocation_count
        query = "needed_outputs_of_few" if few_reused else "needed_outputs"
        rows = await self._connection.fetch(SQL[query], source, overridden, apart, MOST_OBJECTS)
        self._note_left_out(rows)
        taken = takers(self._written)
        if taken:
            columns = list(taken), list(taken.values())
            rows += await self._connection.fetch(SQL["needed_among"], source, overridden, *columns)
        return sorted({row["number"]: row for row in rows}.values(), key=lambda row: row["number"])

    async def _recorded_output(self, row: Record) -> None:
        number, name, consumer = row["number"], row["invocation_id"], row["taker"]
        mend = f"re-execute {name}, or override it with checkpoint.invocation:{name}"
        if self._resolved.request.single_step:
            mend = f"give {consumer} that input in input_overrides"
        if not row["outputs"]:
            why = f"{consumer} takes the output of {name}, which is reused and has none; {mend}"
            self.problems.append(problems.state("MISSING_OUTPUT", "execution", why))
            return
        outputs = Outputs.FromString(row["outputs"]).outputs
        taken = await self._taken_of(number) if len(outputs) > 1 else {one.name for one in outputs}
        why = f"{consumer} takes the output of {name}, which is reused and gone from the object store; {mend}"
        gone = problems.state("MISSING_OUTPUT", "execution", why)
        self._need_of_step((output.payload, gone) for output in outputs if output.name in taken)

    async def _taken_of(self, number: int) -> set[str]:
        """The outputs of an invocation that something affected takes."""
        taken = {output for _, takes in self._written.values() for one, output in takes if one == number}
        consumers = await graph.consumers(self._connection, self._source.id, number, _CONSUMERS)
        affected = await self._affected_among([one.number for one in consumers]) - set(self._written)
        return taken.union(*(one.takes_of(number) for one in consumers if one.number in affected))

    async def _affected_among(self, numbers: Collection[int]) -> set[int]:
        if self._few is not None:
            return set(self._few.affected).intersection(numbers)
        rows = await self._connection.fetch(SQL["affected_among"], list(numbers))
        return {row["number"] for row in rows}

    async def _flow_inputs(self) -> None:
        """Inputs that are carried over. The body of a flow needs all of them."""
        kept = FlowInputs.FromString(self._source.inputs).values
        large = {name: one for name, one in kept.items() if one.object_key and name not in self._resolved.inputs}
        if not large:
            return
        await self._store_marks()
        rows = await self._connection.fetch(SQL["inputs_read"], self._source.id, sorted(large))
        read = set(large) if self._resolved.is_flow else {row["name"] for row in rows}
        for name in sorted(read):
            why = f"the input {name!r} was recorded and is gone from the object store; give it again"
            self._need(large[name], problems.state("MISSING_INPUT", input_field(name), why))

    async def _recorded_values(self) -> None:
        """Plain values in the inputs of steps; a flow's body passes its own."""
        if self._few is not None and not self._few.inputs_have_objects:
            return
        await self._store_marks()
        query = "affected_with_objects" if self._affected <= _LOOKED_INTO else "affected_with_objects_of_few"
        rows = await self._connection.fetch(SQL[query], self._source.id, sorted(self._written), MOST_OBJECTS)
        self._note_left_out(rows)
        for row in rows:
            self._need_of_step(_recorded_inputs(row["invocation_id"], Inputs.FromString(row["inputs"])))

    def _note_left_out(self, rows: Sequence[Record]) -> None:
        self.left_out += rows[0]["count"] - len(rows) if rows else 0


def _recorded_inputs(identity: str, inputs: Inputs) -> Iterator[tuple[Payload, Problem]]:
    for name, payload in _values(inputs):
        why = f"the input {name!r} of {identity} was recorded and is gone from the object store; override it"
        yield payload, problems.state("MISSING_INPUT", step_input_field(identity, name), why)


def takers(written: Mapping[int, tuple[str, frozenset[tuple[int, str]]]]) -> dict[int, str]:
    """What steps take whose inputs are not those recorded, with one that takes it."""
    return {number: consumer for consumer, takes in written.values() for number, _ in takes}


def _values(inputs: Inputs) -> Iterator[tuple[str, Payload]]:
    for name, binding in inputs.bindings.items():
        yield from ((name, leaf.value) for kind, leaf in leaves(binding) if kind == "value")


def of_missing(needed: Iterable[NeededObject], missing: frozenset[str]) -> list[Problem]:
    """The problems of objects that are not there, each once; those that the request names first."""
    found = dict.fromkeys(one.problem for one in needed if one.key in missing)
    return sorted(found, key=lambda problem: problem.kind is not ProblemKind.NOT_FOUND)
