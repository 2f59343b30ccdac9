"""The steps of a graph as clients send them, checked and made into rows, one message after the other.

Only what later steps need is kept, so that a graph of any size passes through. A million steps may come at a time, so
that this is written for speed where that costs no more than a line.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import datetime
from typing import Literal, NamedTuple

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
from dalsegno_planner.store.invocations import GraphRows, InvocationRow, TaskRow

DEFAULT_OUTPUT = "output"
MOST_PROBLEMS = 25

_DEFAULT_OUTPUTS = (DEFAULT_OUTPUT,)
_MOST_KNOWN_CODES = 10_000


class Recorded(NamedTuple):
    """What an import knows of a step beyond its place in the graph."""

    state: str
    kind: str
    started_at: datetime | None
    finished_at: datetime | None
    outputs: bytes | None
    failure: bytes | None
    output_names: tuple[str, ...]


class _Code(NamedTuple):
    """What a step calls."""

    module: str
    name: str
    pinned_digest: str


class _Large(NamedTuple):
    """Values that do not stay in the message that a column of a row holds."""

    number: int
    column: Literal["inputs", "outputs"]
    message: Message
    payloads: list[tuple[Payload, str]]


class _Whole(NamedTuple):
    """What a view shows of a step."""

    invocation_id: str
    definition: bytes
    code_digest: str
    inputs: bytes


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
        self._codes: dict[bytes, _Code] = {}
        self._large: list[_Large] = []

    async def steps(self, specs: Iterable[StepSpec]) -> GraphRows:
        """Return the rows of steps that are to run, and tasks for those that nothing is upstream of.

        Raises:
            UsageError: With every problem of these steps.
        """
        ids: dict[str, int] = {}
        rows = await self._stored([self._row(_whole(spec), spec, _TO_RUN, ids) for spec in specs])
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

    async def recorded_steps(self, steps: Iterable[tuple[SpecView, StepSpec | None, Recorded]]) -> GraphRows:
        """Return the rows of steps that have run elsewhere; what a view does not show is in the step beside it.

        Raises:
            UsageError: With every problem of these steps.
        """
        ids: dict[str, int] = {}
        return GraphRows(await self._stored([self._row(view, spec, known, ids) for view, spec, known in steps]))

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

    def _row(self, view: SpecView, rest: StepSpec | None, recorded: Recorded, ids: dict[str, int]) -> InvocationRow:
        self.count = number = self.count + 1
        uses, invocation_id = self._inputs, view.invocation_id
        code = self._code(view.definition, invocation_id, number)
        self._check_id(invocation_id, number, ids)
        after = [] if rest is None else list(rest.after)
        inputs = uses.read(number, view.inputs, after)
        if uses.large:
            self._large.append(_Large(number, "inputs", uses.message, list(uses.large)))
        upstream, to_run = sorted(uses.upstream) if uses.upstream else [], recorded is _TO_RUN
        options = b""
        outputs = recorded.output_names
        if rest is not None and rest.HasField("options"):
            self._check_concurrency(rest, number)
            options = rest.options.SerializeToString()
            outputs = tuple(rest.options.outputs) or outputs
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
            view.code_digest,
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
        )

    def _check_id(self, invocation_id: str, number: int, ids: dict[str, int]) -> None:
        if not is_name(invocation_id):
            self.report(f"steps[{number}].invocation_id", "every step needs an invocation ID of 1 to 200 characters")
        earlier = ids.setdefault(invocation_id, number)
        if earlier != number:
            text = f"{invocation_id!r} is the invocation ID of step {earlier} already"
            self.report(f"steps[{number}].invocation_id", text)

    def _code(self, serialized: bytes, invocation_id: str, number: int) -> _Code:
        """Return which code a step calls; its texts are read once for all calls."""
        code = self._codes.get(serialized)
        if code is None:
            definition = DefinitionRef.FromString(serialized)
            code = _Code(definition.module, definition.name, definition.pinned_digest)
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

    async def _stored(self, rows: list[InvocationRow]) -> list[InvocationRow]:
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


def _whole(spec: StepSpec) -> _Whole:
    return _Whole(
        spec.invocation_id, spec.definition.SerializeToString(), spec.code_digest, spec.inputs.SerializeToString()
    )
