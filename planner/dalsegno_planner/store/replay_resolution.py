"""What a replay request names, looked up in the recorded graph, and everything that is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from asyncpg import Record

from dalsegno.v1.value_pb2 import FlowInputs, Inputs, Output, Outputs, Payload
from dalsegno_planner.core import problems
from dalsegno_planner.core.execution import Execution, ExecutionKind
from dalsegno_planner.core.ids import Number
from dalsegno_planner.core.overrides import (
    DEFAULT_OUTPUT,
    Overridable,
    check_names,
    check_overridable,
    input_field,
    override_field,
    step_input_field,
)
from dalsegno_planner.core.plan import Mode, check_skipped
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.core.selectors import (
    Candidate,
    Selector,
    SelectorKind,
    no_match,
    select,
    unknown_invocation,
)
from dalsegno_planner.store import graph
from dalsegno_planner.store.graph import Consumer, GraphRow
from dalsegno_planner.store.invocations import InvocationRow
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_names import Names
from dalsegno_planner.store.replay_request import Given, ReplayRequest
from dalsegno_planner.store.replay_source import Source
from dalsegno_planner.store.replay_values import FoundValue, KnownCode, find_value
from dalsegno_planner.store.value_types import check_type

_LOOKED_AT_CONSUMERS = 200
_CHECKED_AT_ONCE = 1 << 16
"""Bytes of a value that is checked between two others' requests; a larger one is checked in a thread."""


@dataclass(frozen=True, slots=True)
class OverriddenOutput:
    """A checkpoint whose output is replaced."""

    key: str
    value: FoundValue
    output: str

    def outputs(self) -> bytes:
        """What consumers receive, a serialized Outputs."""
        return Outputs(outputs=[Output(name=self.output, payload=self.value.payload)]).SerializeToString()


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A step of which inputs are replaced; `row` is None for one that only today's graph has."""

    invocation_id: str
    key: str
    row: GraphRow | None
    values: dict[str, FoundValue] = field(default_factory=dict)


@dataclass(slots=True)
class Resolved:
    """A request against its source. Numbers are those of the recorded graph.

    Attributes:
        targets: The checkpoints that overrides name, with the key, whatever else is wrong with these.
    """

    request: ReplayRequest
    facts: Source
    mode: Mode
    code: KnownCode
    chosen: dict[Number, str] = field(default_factory=dict)
    chosen_names: list[Selector] = field(default_factory=list)
    kept: dict[Number, str] = field(default_factory=dict)
    targets: dict[Number, str] = field(default_factory=dict)
    overrides: dict[Number, OverriddenOutput] = field(default_factory=dict)
    step_inputs: dict[str, StepInputs] = field(default_factory=dict)
    inputs: dict[str, FoundValue] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def source(self) -> Execution:
        """The execution that is replayed."""
        return self.facts.execution

    @property
    def foreseen(self) -> Sequence[Record] | None:
        """The marks of the plan, where they are those of the one invocation that the request chooses, and known."""
        only = [one.number for one in self.facts.candidates]
        return self.facts.foreseen if list(self.chosen) == only else None

    @property
    def is_flow(self) -> bool:
        """Whether a body makes the calls."""
        return self.source.kind is ExecutionKind.FLOW and not self.request.single_step

    @property
    def recorded_step_inputs(self) -> dict[Number, StepInputs]:
        """Steps of which inputs are replaced, without those that only today's graph has."""
        return {one.row.number: one for one in self.step_inputs.values() if one.row is not None}

    @property
    def todays_steps(self) -> Mapping[str, InvocationRow]:
        """Today's graph by invocation ID; empty where the recorded one counts."""
        code = self.request.code
        return {row.invocation_id: row for row in (code.steps or ())} if code is not None else {}


async def resolve(connection: Connection, source: Source, request: ReplayRequest, names: Names) -> Resolved:
    """Look up what a request names. Problems are gathered, not raised."""
    code = KnownCode(source.execution, source.code_digest, request.code)
    resolved = Resolved(request, source, request.chosen_mode, code, problems=[*request.problems, *names.problems])
    await _Resolution(connection, resolved).run(names)
    return resolved


async def _misfits(payload: Payload, schema: str, place: str) -> list[Problem]:
    if payload.size > _CHECKED_AT_ONCE:
        return await asyncio.to_thread(check_type, payload, schema, place)
    return check_type(payload, schema, place)


class _Resolution:
    def __init__(self, connection: Connection, resolved: Resolved) -> None:
        self._connection = connection
        self._resolved = resolved
        self._request = resolved.request
        self._source = resolved.source
        self._candidates = resolved.facts.candidates

    async def run(self, names: Names) -> None:
        await self._choose(names.chosen)
        await self._keep(names.kept)
        targets = await self._override_targets(names.overrides)
        rows = await self._step_rows(names.steps)
        consumers = {number: await self._consumers(number) for number in targets}
        await self._load_definitions(rows, targets, consumers)
        await self._find_inputs()
        await self._override(targets, consumers)
        await self._replace_inputs(rows)
        self._check_single_step()

    def _report(self, *found: Problem) -> None:
        self._resolved.problems.extend(found)

    async def _select(self, selector: Selector, place: str, *, exact: bool) -> Sequence[Candidate]:
        found = select(selector, self._candidates, place)
        if isinstance(found, Problem):
            self._report(found)
            return ()
        if not found:
            available = await graph.known_names(self._connection, self._source.id)
            self._report((unknown_invocation if exact else no_match)(selector, available, place))
        return found

    async def _numbers(self, selector: Selector, place: str, *, exact: bool) -> list[Number]:
        found = await self._select(selector, place, exact=exact)
        if found and selector.kind is SelectorKind.ALL:
            return await graph.numbers_of_name(self._connection, self._source.id, selector.value)
        return [one.number for one in found]

    async def _choose(self, selectors: Mapping[str, Selector]) -> None:
        for selector in selectors.values():
            found = await self._select(selector, "from", exact=False)
            if selector.kind is SelectorKind.ALL and found:
                self._resolved.chosen_names.append(selector)
            else:
                self._resolved.chosen.update({one.number: selector.text for one in found})

    async def _keep(self, selectors: Mapping[str, Selector]) -> None:
        numbers: set[Number] = set()
        todays = self._resolved.todays_steps
        for selector in selectors.values():
            if selector.value in todays and not select(selector, self._candidates, "skip"):
                why = "it is new and has never run, so there is nothing to reuse"
                self._report(problems.usage("CANNOT_SKIP", "skip", f"{selector.value} cannot be skipped: {why}"))
                continue
            numbers.update(await self._numbers(selector, "skip", exact=True))
        if not numbers:
            return
        rows = await graph.rows(self._connection, self._source.id, sorted(numbers))
        nodes = [row.node() for row in rows]
        upstream = {number for node in nodes for number in node.upstream}
        names = await graph.invocation_ids(self._connection, self._source.id, upstream)
        self._resolved.kept = {row.number: row.invocation_id for row in rows}
        self._report(*check_skipped(nodes, names))

    async def _override_targets(self, selectors: Mapping[str, Selector]) -> dict[Number, tuple[str, GraphRow]]:
        key_of: dict[Number, str] = {}
        for key, selector in selectors.items():
            for number in await self._numbers(selector, override_field(key), exact=False):
                if number in key_of:
                    self._report(
                        problems.usage(
                            "OVERRIDDEN_TWICE", override_field(key), f"{key_of[number]!r} overrides the same output"
                        )
                    )
                key_of.setdefault(number, key)
        if not key_of:
            return {}
        self._resolved.targets = key_of
        rows = await graph.rows(self._connection, self._source.id, key_of)
        return {row.number: (key_of[row.number], row) for row in rows}

    async def _consumers(self, number: Number) -> list[Consumer]:
        return await graph.consumers(self._connection, self._source.id, number, _LOOKED_AT_CONSUMERS)

    async def _step_rows(self, selectors: Mapping[str, Selector]) -> list[tuple[str, str, GraphRow | None]]:
        """Key, invocation ID and row of each step of which inputs are replaced."""
        found: list[tuple[str, str, GraphRow | None]] = []
        todays = self._resolved.todays_steps
        for key, selector in selectors.items():
            if selector.value in todays and not select(selector, self._candidates, key):
                found.append((key, selector.value, None))
                continue
            numbers = await self._numbers(selector, step_input_field(key), exact=True)
            rows = await graph.rows(self._connection, self._source.id, numbers) if numbers else []
            found.extend((key, row.invocation_id, row) for row in rows)
        return found

    async def _load_definitions(
        self,
        rows: Sequence[tuple[str, str, GraphRow | None]],
        targets: Mapping[Number, tuple[str, GraphRow]],
        consumers: Mapping[Number, Sequence[Consumer]],
    ) -> None:
        overridden = [row for _, row in targets.values()]
        steps = {
            (row.module, row.name, row.code_digest)
            for row in [*overridden, *(row for *_, row in rows if row is not None)]
        }
        steps |= {(one.module, one.name, one.code_digest) for found in consumers.values() for one in found}
        if steps or self._request.inputs:
            await self._resolved.code.load(self._connection, steps)

    async def _found(self, given: Given, place: str, schemas: Iterable[str] = ()) -> FoundValue | None:
        found = await find_value(self._connection, given, place, schemas)
        if isinstance(found, Problem):
            self._report(found)
            return None
        return found

    async def _find_inputs(self) -> None:
        given, code = self._request.inputs, self._resolved.code
        if not given:
            return
        known = set(FlowInputs.FromString(self._source.inputs).values)
        if code.todays_flow is not None:
            known |= set(code.todays_flow.input_schemas)
        fields = {name: input_field(name) for name in given}
        what = f"{self._source.flow} has no input"
        self._report(*check_names(given, known, what, fields))
        self._check_shaping()
        for name, value in given.items():
            found = await self._found(value, fields[name], [code.flow_schemas.get(name, "")])
            if found is not None and name in known:
                self._report(*await _misfits(found.payload, code.flow_schemas.get(name, ""), fields[name]))
                self._resolved.inputs[name] = found

    def _check_shaping(self) -> None:
        code = self._request.code
        if code is not None and code.steps is not None:
            return
        for name in sorted(self._request.inputs.keys() & set(self._resolved.facts.shaping_inputs)):
            why = (
                f"the shape of the graph depends on {name!r}, and the recorded graph cannot follow it; replay from "
                f"code, with {self._source.flow}.replay(…)"
            )
            self._report(problems.usage("SHAPING_INPUT", input_field(name), why))

    async def _override(
        self,
        targets: Mapping[Number, tuple[str, GraphRow]],
        consumers: Mapping[Number, Sequence[Consumer]],
    ) -> None:
        values: dict[str, FoundValue | None] = {}
        for key, given in self._request.overrides.items():
            schemas = [one for named, row in targets.values() if named == key for one in self._outputs_of(row).values()]
            values[key] = await self._found(given, override_field(key), schemas)
        for number, (key, row) in targets.items():
            taken = {name for one in consumers[number] for name in one.takes_of(number)}
            outputs = frozenset(row.output_names()) | taken
            has_consumer = self._resolved.is_flow or bool(consumers[number])
            is_wait = not row.node().is_step
            target = Overridable(row.invocation_id, is_wait, outputs, has_consumer)
            found = check_overridable(target, key)
            self._report(*found)
            value = values[key]
            if found or value is None:
                continue
            name = next(iter(outputs), DEFAULT_OUTPUT)
            await self._check_output(row, name, key, value, consumers[number])
            self._resolved.overrides[number] = OverriddenOutput(key, value, name)

    def _outputs_of(self, row: GraphRow) -> Mapping[str, str]:
        return self._resolved.code.output_schemas(row.module, row.name, row.code_digest)

    async def _check_output(
        self, row: GraphRow, output: str, key: str, value: FoundValue, consumers: Sequence[Consumer]
    ) -> None:
        """Check a value against the type of the output, and of the inputs that take nothing but it."""
        code = self._resolved.code
        schemas = {
            code.step_schemas(one.module, one.name, one.code_digest).get(name, "")
            for one in consumers
            for name, binding in one.inputs.bindings.items()
            if binding.WhichOneof("kind") == "output" and binding.output.number == row.number
        }
        schemas.add(self._outputs_of(row).get(output, ""))
        found = {one for schema in schemas for one in await _misfits(value.payload, schema, override_field(key))}
        self._report(*sorted(found, key=lambda problem: (problem.field, problem.description)))

    async def _replace_inputs(self, rows: Sequence[tuple[str, str, GraphRow | None]]) -> None:
        values: dict[tuple[str, str], FoundValue | None] = {}
        for key, replaced in self._request.step_input_overrides.items():
            known = [self._known_inputs(one, row)[1] for named, one, row in rows if named == key]
            for name, value in replaced.items():
                schemas = [one.get(name, "") for one in known]
                values[key, name] = await self._found(value, step_input_field(key, name), schemas)
        for key, invocation_id, row in rows:
            given = self._request.step_input_overrides[key]
            if row is not None and not row.node().is_step:
                why = f"{invocation_id} is a wait and has no inputs"
                self._report(problems.usage("WAIT_OVERRIDE", step_input_field(key), why))
                continue
            names, types = self._known_inputs(invocation_id, row)
            fields = {name: step_input_field(key, name) for name in given}
            self._report(*check_names(given, names, f"{invocation_id} has no input", fields))
            target = self._resolved.step_inputs.setdefault(invocation_id, StepInputs(invocation_id, key, row))
            for name in given:
                if name in target.values:
                    why = f"{target.key!r} overrides the same input"
                    self._report(problems.usage("OVERRIDDEN_TWICE", fields[name], why))
                found = values[key, name]
                if found is not None and name in names:
                    self._report(*await _misfits(found.payload, types.get(name, ""), fields[name]))
                    target.values[name] = found

    def _known_inputs(self, invocation_id: str, row: GraphRow | None) -> tuple[frozenset[str], Mapping[str, str]]:
        today = self._resolved.todays_steps.get(invocation_id)
        code = self._resolved.code
        names: set[str] = set()
        schemas: Mapping[str, str] = {}
        if row is not None:
            schemas = code.step_schemas(row.module, row.name, row.code_digest)
            names |= row.input_names()
        if today is not None:
            schemas = code.step_schemas(today.module, today.name, today.code_digest)
            names |= set(Inputs.FromString(today.inputs).bindings)
        return frozenset(names | set(schemas)), schemas

    def _check_single_step(self) -> None:
        resolved = self._resolved
        if not self._request.single_step:
            return
        if resolved.mode is not Mode.FROM or resolved.chosen_names or len(self._request.selectors) != 1:
            self._report(
                problems.usage("SINGLE_STEP", "from", "the replay of a single step names exactly one invocation")
            )
