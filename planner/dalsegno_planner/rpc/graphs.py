"""The steps of a graph as clients send them, checked and made into rows, one message after the other.

Only what later steps need is kept, so that a graph of any size passes through. A million steps may come at a time, so
that this is written for speed where that costs no more than a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable
from datetime import datetime
from typing import Literal, NamedTuple, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from dalsegno.errors import Problem, UsageError
from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.execution_service_pb2 import StepSpec
from dalsegno.v1.value_pb2 import Binding, Outputs, Payload
from dalsegno_planner.core.execution import route
from dalsegno_planner.core.ids import MAX_OUTPUTS, ExecutionId
from dalsegno_planner.rpc.convert import is_name
from dalsegno_planner.rpc.inputs import InputsReader
from dalsegno_planner.rpc.limits import task_limit
from dalsegno_planner.rpc.step_views import SpecView
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store.invocations import CompletedRow, GraphRows, InvocationRow, StepCode, TaskRow

DEFAULT_OUTPUT = "output"
MOST_PROBLEMS = 25

_DEFAULT_OUTPUTS = (DEFAULT_OUTPUT,)
_MOST_KNOWN_CODES = 10_000
_STEPS_AT_ONCE = 100


Row = TypeVar("Row", InvocationRow, InvocationRow | CompletedRow)


class Recorded(NamedTuple):
    """What an import knows of a step beyond its place in the graph."""

    state: str
    kind: str
    started_at: datetime | None
    finished_at: datetime | None
    outputs: bytes | None
    failure: bytes | None
    output_names: tuple[str, ...]
    original_call_id: UUID | None = None


class _Large(NamedTuple):
    """Values that do not stay in the message that a column of a row holds."""

    number: int
    column: Literal["inputs", "outputs"]
    message: Message
    payloads: list[tuple[Payload, str]]


_TO_RUN = Recorded("pending", "step", None, None, None, None, ())


class GraphReader:
    """Makes steps into rows.

    Args:
        execution_id: Whose graph it is.
        project: Its project, for the routes of tasks.
        flow_inputs: The names of the execution's inputs.
        values: Completes payloads.
    """

    def __init__(
        self, execution_id: ExecutionId, project: str, flow_inputs: Container[str], values: ValueReader
    ) -> None:
        self.count = 0
        self.problems: list[Problem] = []
        self._execution_id = execution_id
        self._project = project
        self._values = values
        self._inputs = InputsReader(flow_inputs, values, self.outputs_of, self.report)
        # Only the outputs of steps that do not have the default ones; equal tuples are kept once.
        self._outputs: dict[int, tuple[str, ...]] = {}
        self._known_outputs: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._codes: dict[bytes, StepCode] = {}
        self._large: list[_Large] = []
        # Of a message's steps; that an earlier one has an ID is found by Postgres.
        self._ids: dict[str, int] = {}

    async def rows(self, specs: Iterable[StepSpec]) -> list[InvocationRow]:
        """Return the rows of steps that are to run.

        Raises:
            UsageError: With every problem of these steps.
        """
        self._ids = {}
        return await self._stored([self._row(spec, _TO_RUN) for spec in specs])

    async def steps(self, specs: Iterable[StepSpec]) -> GraphRows:
        """Return the rows of steps that are to run, and tasks for those that nothing is upstream of.

        Raises:
            UsageError: With every problem of these steps.
        """
        rows = await self.rows(specs)
        tasks = [
            TaskRow(
                self._execution_id,
                row.number,
                False,
                route(self._project, row.module, row.name, row.pinned_digest),
                *task_limit(self._project, row.options),
            )
            for row in rows
            if not row.upstream
        ]
        return GraphRows(rows, tasks)

    async def recorded_steps(self, steps: Iterable[InvocationRow | CompletedRow]) -> GraphRows:
        """Return the rows of a message's steps that have run elsewhere, as the methods below make them.

        Raises:
            UsageError: With every problem of these steps.
        """
        self._ids = {}
        rows: list[InvocationRow | CompletedRow] = []
        for row in steps:
            rows.append(row)
            if len(rows) % _STEPS_AT_ONCE == 0:
                # There is other work: also to send to Postgres what it waits for.
                await asyncio.sleep(0)
        return GraphRows(await self._stored(rows))

    def completed_step(
        self,
        view: SpecView,
        output_names: tuple[str, ...],
        outputs: bytes | None,
        started_at: datetime | None,
        finished_at: datetime | None,
    ) -> CompletedRow:
        """Return the row of a step that has completed at its first attempt and that a view shows all of."""
        self.count = number = self.count + 1
        uses, invocation_id, definition, inputs = self._inputs, view.invocation_id, view.definition, view.inputs
        code = self._codes.get(definition) or self._code(definition, invocation_id, number)
        self._check_id(invocation_id, number)
        used = uses.recall(number, definition, inputs)
        if used is None:
            given, inputs = inputs, uses.read(number, inputs, [])
            uses.learn(definition, given)
            if uses.large:
                self._large.append(_Large(number, "inputs", uses.message, list(uses.large)))
            used = sorted(uses.upstream), sorted(uses.flow_inputs)
        if output_names and output_names != _DEFAULT_OUTPUTS:
            self._note_outputs(number, output_names)
        return CompletedRow(
            self._execution_id,
            number,
            invocation_id,
            code,
            view.code_digest,
            started_at,
            finished_at,
            used[0],
            used[1],
            inputs,
            outputs,
        )

    def recorded_step(self, step: StepSpec, recorded: Recorded) -> InvocationRow:
        """Return the row of any step that has run elsewhere."""
        return self._row(step, recorded)

    async def result(self, binding: Binding) -> bytes:
        """Return the shape of what a pipeline returns, as it is stored.

        Raises:
            UsageError: It refers to what is not there.
        """
        problems: list[Problem] = []
        reader = self._inputs.for_result(lambda _, text: problems.append(Problem("result", text)))
        reader.begin(self.count + 1)
        reader.follow(binding, "result")
        for payload, field in reader.large:
            await self._values.store(payload, field)
        self.problems += problems
        self.check()
        return binding.SerializeToString()

    def check(self) -> None:
        """Refuse the graph if anything was found wrong with it.

        Raises:
            UsageError: With the problems.
        """
        if self.problems:
            raise UsageError("the graph is wrong; nothing was stored", reason="INVALID_GRAPH", problems=self.problems)

    def report(self, field: str, description: str) -> None:
        """Note a problem; after some, the rest is not worth looking for."""
        self.problems.append(Problem(field, description))
        if len(self.problems) >= MOST_PROBLEMS:
            self.check()

    def outputs_of(self, number: int) -> tuple[str, ...]:
        """Return the names of the outputs of a step that was read."""
        return self._outputs.get(number, _DEFAULT_OUTPUTS)

    def complete_output(self, number: int, outputs: Outputs, payload: Payload, field: str) -> None:
        """Complete an output of the step that is read next; report what is wrong with it."""
        try:
            if self._values.complete(payload, field):
                self._large.append(_Large(number, "outputs", outputs, [(payload, field)]))
        except UsageError as error:
            self.report(field, str(error))

    def _row(self, spec: StepSpec, recorded: Recorded) -> InvocationRow:
        self.count = number = self.count + 1
        uses, invocation_id = self._inputs, spec.invocation_id
        code = self._code(spec.definition.SerializeToString(), invocation_id, number)
        self._check_id(invocation_id, number)
        inputs = uses.read(number, spec.inputs.SerializeToString(), list(spec.after))
        if uses.large:
            self._large.append(_Large(number, "inputs", uses.message, list(uses.large)))
        upstream, to_run = sorted(uses.upstream) if uses.upstream else [], recorded is _TO_RUN
        options = b""
        outputs = recorded.output_names
        if spec.HasField("options"):
            self._check_concurrency(spec, number)
            options = spec.options.SerializeToString()
            outputs = tuple(spec.options.outputs) or outputs
        if outputs and outputs != _DEFAULT_OUTPUTS:
            self._note_outputs(number, outputs)
        return InvocationRow(
            self._execution_id,
            number,
            number,
            invocation_id,
            code.name,
            recorded.kind,
            recorded.state,
            code.module,
            code.pinned_digest,
            spec.code_digest,
            0 if to_run or recorded.state == "not_reached" else 1,
            len(upstream) if to_run else 0,
            recorded.started_at,
            recorded.finished_at,
            upstream,
            uses.order_alone,
            sorted(uses.flow_inputs) if uses.flow_inputs else [],
            inputs,
            recorded.outputs,
            recorded.failure,
            options,
            recorded.original_call_id,
        )

    def _check_id(self, invocation_id: str, number: int) -> None:
        if not is_name(invocation_id):
            self.report(f"steps[{number}].invocation_id", "every step needs an invocation ID of 1 to 200 characters")
        earlier = self._ids.setdefault(invocation_id, number)
        if earlier != number:
            text = f"{invocation_id!r} is the invocation ID of step {earlier} already"
            self.report(f"steps[{number}].invocation_id", text)

    def _code(self, serialized: bytes, invocation_id: str, number: int) -> StepCode:
        """Return which code a step calls; its texts are read once for all calls."""
        code = self._codes.get(serialized)
        if code is None:
            definition = DefinitionRef.FromString(serialized)
            code = StepCode(definition.module, definition.name, definition.pinned_digest)
            if not is_name(code.name):
                text = f"step {invocation_id!r} needs the name of its code"
                self.report(f"steps[{number}].definition.name", text)
            elif len(self._codes) < _MOST_KNOWN_CODES:
                self._codes[serialized] = code
        return code

    def _check_concurrency(self, spec: StepSpec, number: int) -> None:
        limit = spec.options.concurrency
        if spec.options.HasField("concurrency") and not (is_name(limit.name) and limit.most):
            self.report(f"steps[{number}].options.concurrency", "a limit needs a name and a number from 1")

    def _note_outputs(self, number: int, outputs: tuple[str, ...]) -> None:
        if len(outputs) > MAX_OUTPUTS:
            self.report(f"steps[{number}].options.outputs", f"a step has at most {MAX_OUTPUTS} outputs")
        self._outputs[number] = self._known_outputs.setdefault(outputs, outputs)

    async def _stored(self, rows: list[Row]) -> list[Row]:
        """Refuse what is wrong, and put large values where they belong."""
        self.check()
        large, self._large = self._large, []
        for one in large:
            for payload, field in one.payloads:
                await self._values.store(payload, field)
            place = one.number - rows[0].number
            stored = one.message.SerializeToString()
            row = rows[place]
            rows[place] = row._replace(inputs=stored) if one.column == "inputs" else row._replace(outputs=stored)
        return rows
