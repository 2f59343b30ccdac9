"""The steps of a graph as clients send them, checked and made into rows, one message after the other.

Only what later steps need is kept, so that a graph of any size passes through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from dalsegno.errors import Problem, UsageError
from dalsegno.v1.execution_service_pb2 import StepSpec
from dalsegno.v1.value_pb2 import Binding, OutputRef, Payload
from dalsegno_planner.core.execution import route
from dalsegno_planner.core.ids import MAX_OUTPUTS, ExecutionId
from dalsegno_planner.rpc.convert import is_name
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store.invocations import EdgeRow, GraphRows, InvocationRow, TaskRow

DEFAULT_OUTPUT = "output"
MOST_PROBLEMS = 25
MOST_STEPS = 2**31 - 2

_DEFAULT_OUTPUTS = (DEFAULT_OUTPUT,)
_DEEPEST_BINDING = 100


class Recorded(NamedTuple):
    """What an import knows of a step beyond its place in the graph."""

    state: str
    kind: str
    started_at: datetime | None
    finished_at: datetime | None
    outputs: bytes | None
    failure: bytes | None
    output_names: tuple[str, ...] | None


class GraphReader:
    """Makes steps into rows.

    Args:
        execution_id: Whose graph it is.
        project: Its project, for the routes of tasks.
        flow_inputs: The names of the execution's inputs.
        values: Completes payloads.
    """

    def __init__(
        self, execution_id: ExecutionId, project: str, flow_inputs: Iterable[str], values: ValueReader
    ) -> None:
        self.count = 0
        self.problems: list[Problem] = []
        self._execution_id = execution_id
        self._project = project
        self._flow_inputs = frozenset(flow_inputs)
        self._values = values
        # Only the outputs of steps that do not have the default ones; equal tuples are kept once.
        self._outputs: dict[int, tuple[str, ...]] = {}
        self._known_outputs: dict[tuple[str, ...], tuple[str, ...]] = {_DEFAULT_OUTPUTS: _DEFAULT_OUTPUTS}

    async def steps(self, specs: Iterable[StepSpec]) -> GraphRows:
        """Return the rows of steps that are to run, and tasks for those that nothing is upstream of.

        Raises:
            UsageError: With every problem of these steps.
        """
        invocations: list[InvocationRow] = []
        edges: list[EdgeRow] = []
        tasks: list[TaskRow] = []
        names: dict[str, int] = {}
        for spec in specs:
            row = await self._row(spec, None, names)
            invocations.append(row)
            edges.extend(EdgeRow(self._execution_id, upstream, row.number) for upstream in row.upstream)
            if not row.upstream:
                where = route(self._project, row.module, row.name, row.pinned_digest)
                tasks.append(TaskRow(self._execution_id, row.number, False, where))
        self.check()
        return GraphRows(invocations, edges, tasks)

    async def recorded_steps(self, steps: Iterable[tuple[StepSpec, Recorded]]) -> GraphRows:
        """Return the rows of steps that have run elsewhere.

        Raises:
            UsageError: With every problem of these steps.
        """
        invocations: list[InvocationRow] = []
        edges: list[EdgeRow] = []
        names: dict[str, int] = {}
        execution_id = self._execution_id
        for spec, recorded in steps:
            row = await self._row(spec, recorded, names)
            invocations.append(row)
            for upstream in row.upstream:
                edges.append(EdgeRow(execution_id, upstream, row.number))  # noqa: PERF401 - a million of these
        self.check()
        return GraphRows(invocations, edges)

    async def result(self, binding: Binding) -> bytes:
        """Return the shape of what a pipeline returns, as it is stored.

        Raises:
            UsageError: It refers to what is not there.
        """
        uses = _Uses(self, self.count + 1, "result")
        uses.follow(binding, "result", 0)
        await self._spill(uses)
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

    def has_flow_input(self, name: str) -> bool:
        """Whether the execution has an input of this name."""
        return name in self._flow_inputs

    def complete(self, payload: Payload, field: str) -> bool:
        """Complete a payload; report what is wrong with it."""
        try:
            return self._values.complete(payload, field)
        except UsageError as error:
            self.report(field, str(error))
            return False

    async def _row(self, spec: StepSpec, recorded: Recorded | None, names: dict[str, int]) -> InvocationRow:
        self.count = number = self.count + 1
        self._check_names(spec, number, names)
        uses = _Uses(self, number, "")
        bindings: Mapping[str, Binding] = spec.inputs.bindings
        for name, binding in bindings.items():
            uses.follow(binding, name, 0)
        after = list(spec.after)
        if after:
            uses.after(after)
        if uses.large:
            await self._spill(uses)
        upstream = sorted(uses.upstream)
        outputs = tuple(spec.options.outputs) or (recorded.output_names if recorded is not None else None)
        if outputs is not None and outputs and outputs != _DEFAULT_OUTPUTS:
            self._note_outputs(number, outputs)
        definition = spec.definition
        return InvocationRow(
            self._execution_id,
            number,
            number,
            spec.invocation_id,
            definition.name,
            "step" if recorded is None else recorded.kind,
            "pending" if recorded is None else recorded.state,
            definition.module,
            definition.pinned_digest,
            spec.code_digest,
            0 if recorded is None or recorded.state == "not_reached" else 1,
            len(upstream) if recorded is None else 0,
            None if recorded is None else recorded.started_at,
            None if recorded is None else recorded.finished_at,
            upstream,
            after,
            sorted(uses.flow_inputs),
            spec.inputs.SerializeToString(),
            None if recorded is None else recorded.outputs,
            None if recorded is None else recorded.failure,
            spec.options.SerializeToString(),
        )

    def _check_names(self, spec: StepSpec, number: int, names: dict[str, int]) -> None:
        invocation_id = spec.invocation_id
        if number > MOST_STEPS:
            self.report(f"steps[{number}]", f"a graph has at most {MOST_STEPS:,} steps")
        if not is_name(invocation_id):
            self.report(f"steps[{number}].invocation_id", "every step needs an invocation ID of 1 to 200 characters")
        earlier = names.setdefault(invocation_id, number)
        if earlier != number:
            self.report(
                f"steps[{number}].invocation_id", f"{invocation_id!r} is the invocation ID of step {earlier} already"
            )
        if not is_name(spec.definition.name):
            self.report(f"steps[{number}].definition.name", f"step {invocation_id!r} needs the name of its code")

    def _note_outputs(self, number: int, outputs: tuple[str, ...]) -> None:
        if len(outputs) > MAX_OUTPUTS:
            self.report(f"steps[{number}].options.outputs", f"a step has at most {MAX_OUTPUTS} outputs")
        self._outputs[number] = self._known_outputs.setdefault(outputs, outputs)

    async def _spill(self, uses: _Uses) -> None:
        for payload, field in uses.large:
            await self._values.store(payload, field)


class _Uses:
    """What the inputs of one step use: other steps, inputs of the execution, large values."""

    __slots__ = ("_graph", "_number", "_prefix", "flow_inputs", "large", "upstream")

    def __init__(self, graph: GraphReader, number: int, prefix: str) -> None:
        self.upstream: set[int] = set()
        self.flow_inputs: set[str] = set()
        self.large: list[tuple[Payload, str]] = []
        self._graph = graph
        self._number = number
        self._prefix = prefix

    def follow(self, binding: Binding, path: str, depth: int) -> None:
        kind = binding.WhichOneof("kind")
        if kind == "output":
            self._output(binding.output, path)
        elif kind == "value":
            if self._graph.complete(binding.value, self._field(path)):
                self.large.append((binding.value, self._field(path)))
        elif kind == "flow_input":
            self._flow_input(binding.flow_input, path)
        elif kind is None:
            self._graph.report(self._field(path), "the binding says nothing; give a value, an output or a flow input")
        elif depth >= _DEEPEST_BINDING:
            self._graph.report(self._field(path), f"bindings are nested more than {_DEEPEST_BINDING} deep")
        elif kind == "map":
            for place, entry in enumerate(binding.map.entries):
                if entry.WhichOneof("key") == "encoded" and self._graph.complete(entry.encoded, self._field(path)):
                    self._graph.report(self._field(path), "a key of a dictionary is too large")
                self.follow(entry.value, f"{path}[{place}]", depth + 1)
        else:
            items = binding.list.items if kind == "list" else binding.tuple.items
            for place, item in enumerate(items):
                self.follow(item, f"{path}[{place}]", depth + 1)

    def after(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self._refers_back(number, self._prefix or f"steps[{self._number}].after"):
                self.upstream.add(number)

    def _output(self, reference: OutputRef, path: str) -> None:
        number = reference.number
        if self._refers_back(number, path):
            self.upstream.add(number)
            outputs = self._graph.outputs_of(number)
            if reference.output not in outputs:
                self._graph.report(
                    self._field(path),
                    f"step {number} has no output {reference.output!r}; it has {', '.join(outputs)}",
                )
        for alternative in reference.alternatives:
            self._output(alternative, path)

    def _refers_back(self, number: int, path: str) -> bool:
        if 0 < number < self._number:
            return True
        self._graph.report(
            path if path.startswith("steps[") else self._field(path),
            f"it refers to step {number}; a step refers only to those before it in the stream, which are 1 to "
            f"{self._number - 1}"
            if self._number > 1
            else f"it refers to step {number}, and no step comes before it",
        )
        return False

    def _flow_input(self, name: str, path: str) -> None:
        if not self._graph.has_flow_input(name):
            self._graph.report(self._field(path), f"the execution has no input {name!r}")
        self.flow_inputs.add(name)

    def _field(self, path: str) -> str:
        return path if self._prefix else f"steps[{self._number}].inputs.{path}"
