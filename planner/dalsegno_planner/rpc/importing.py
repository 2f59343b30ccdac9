"""Creates finished executions from records made elsewhere, all or nothing, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.errors import UsageError
from dalsegno.v1.execution_pb2 import ExecutionState as ExecutionStateMessage
from dalsegno.v1.execution_pb2 import InvocationKind as InvocationKindMessage
from dalsegno.v1.execution_pb2 import InvocationState as InvocationStateMessage
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceImportRequest,
    ImportedStep,
    ImportedSteps,
    ImportHeader,
)
from dalsegno.v1.value_pb2 import Binding, Outputs
from dalsegno.v1.wait_service_pb2 import Wait
from dalsegno.v1.wait_service_pb2 import WaitState as WaitStateMessage
from dalsegno.values import parse_json_text
from dalsegno_planner.core.execution import Execution, ExecutionState, NewExecution, Outcome, WaitState
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.rpc.convert import execution_state, moment, optional_uuid
from dalsegno_planner.rpc.graphs import GraphReader, Recorded
from dalsegno_planner.rpc.headers import definition_rows, first_message, new_execution
from dalsegno_planner.rpc.recorded_marks import MarksReader
from dalsegno_planner.rpc.step_views import has_rest, viewed
from dalsegno_planner.rpc.streams import AlreadyCreated, gather, insert_graph, refuse_repeated
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store import executions, imports
from dalsegno_planner.store.definitions import Definitions
from dalsegno_planner.store.imports import WaitRow, Yields
from dalsegno_planner.store.invocations import CompletedRow, GraphRows, InvocationRow
from dalsegno_planner.store.pool import Connection, Pool

_STATES = {
    InvocationStateMessage.INVOCATION_STATE_UNSPECIFIED: "completed",
    InvocationStateMessage.INVOCATION_STATE_COMPLETED: "completed",
    InvocationStateMessage.INVOCATION_STATE_FAILED: "failed",
    InvocationStateMessage.INVOCATION_STATE_CANCELLED: "cancelled",
    InvocationStateMessage.INVOCATION_STATE_NOT_REACHED: "not_reached",
}
_KINDS = {
    InvocationKindMessage.INVOCATION_KIND_UNSPECIFIED: "step",
    InvocationKindMessage.INVOCATION_KIND_STEP: "step",
    InvocationKindMessage.INVOCATION_KIND_WAIT: "wait",
}
_WAIT_STATES = {
    WaitStateMessage.WAIT_STATE_ANSWERED: WaitState.ANSWERED,
    WaitStateMessage.WAIT_STATE_TIMED_OUT: WaitState.TIMED_OUT,
    WaitStateMessage.WAIT_STATE_ABORTED: WaitState.ABORTED,
}
_IMPLIED_WAIT_STATES = {"completed": WaitState.ANSWERED, "failed": WaitState.TIMED_OUT}
_MOST_WAIT_BYTES = 64 * 1024 * 1024
"""What is known of waits is kept until all steps are stored."""
_SMALL_OUTPUTS = 256
_MOST_KNOWN_OUTPUTS = 1_000


class Importer:
    """Stores recorded executions."""

    def __init__(self, pool: Pool, values: ValueReader, definitions: Definitions) -> None:
        self._pool = pool
        self._values = values
        self._definitions = definitions

    async def record(self, messages: AsyncIterator[ExecutionServiceImportRequest]) -> Execution:
        """Create the execution that a client stream records, or return the one that the request created before.

        Raises:
            UsageError: With everything that is wrong with it; nothing has been stored then.
        """
        header = (await first_message(messages, "Import")).header
        new, inputs = await new_execution(
            self._pool, header, self._values, module_required=False, code_digest=header.code_digest
        )
        new = replace(new, shaping_inputs=tuple(header.shaping_inputs), debug=header.debug)
        source_id = optional_uuid(header.original_exec_id, "original_exec_id")
        code = definition_rows(new.project, header.definitions)
        graph = GraphReader(new.id, new.project, inputs.values, self._values)
        record = _Record(graph, self._values, new.id, is_replay=source_id is not None)
        batches = record.batches(messages)
        first = await gather(batches)
        try:
            async with self._pool.acquire() as connection:
                await executions.check_name(connection, new)
                await self._definitions.record(connection, new.project, code)
                async with connection.transaction():
                    await insert_graph(connection, first, batches)
                    await imports.insert_waits(connection, new.id, record.waits)
                    await imports.insert_yields(connection, new.id, record.yields)
                    new = await record.returning(new)
                    outcome = await self._outcome(connection, header, record.failures)
                    created = await executions.record_finished(
                        connection, new, outcome, record.graph.count, record.failures
                    )
                    refuse_repeated(new, created)
                    if source_id is None:
                        return created
                    return await executions.record_provenance(
                        connection,
                        created.id,
                        source_id,
                        header.requested_by,
                        header.single_step,
                        list(header.overridden_inputs),
                    )
        except AlreadyCreated as repeated:
            return repeated.execution

    async def _outcome(self, connection: Connection, header: ImportHeader, failures: int) -> Outcome:
        state = ExecutionState.FAILED if failures else ExecutionState.COMPLETED
        if header.state != ExecutionStateMessage.EXECUTION_STATE_UNSPECIFIED:
            state = execution_state(header.state, "state")
        if not state.finished:
            raise UsageError(
                f"an imported execution has ended; its state cannot be {state}", reason="UNFINISHED_IMPORT"
            )
        result = None
        if header.HasField("result"):
            result = (await self._values.read(connection, header.result, "result")).SerializeToString()
        return Outcome(
            state=state,
            result=result,
            failure=header.failure.SerializeToString() if header.HasField("failure") else None,
            started_at=moment(header.started_at) if header.HasField("started_at") else None,
            finished_at=moment(header.finished_at) if header.HasField("finished_at") else None,
        )


class _Record:
    """The steps of one import."""

    def __init__(self, graph: GraphReader, values: ValueReader, execution_id: ExecutionId, *, is_replay: bool) -> None:
        self.graph = graph
        self._marks = MarksReader(execution_id, values, graph.report, is_replay=is_replay)
        self.failures = 0
        self.waits: list[WaitRow] = []
        self.yields = Yields()
        self._wait_bytes = 0
        self._values = values
        self._returns: Binding | None = None
        # Those of many steps are the same, and were found right once.
        self._known_outputs: dict[bytes, tuple[str, ...]] = {}

    async def batches(self, messages: AsyncIterator[ExecutionServiceImportRequest]) -> AsyncIterator[GraphRows]:
        async for message in messages:
            kind = message.WhichOneof("message")
            if kind == "header":
                raise UsageError("only the first message of Import is a header", reason="SECOND_HEADER")
            if self._returns is not None:
                raise UsageError("nothing comes after what the pipeline returns", reason="AFTER_LAST_MESSAGE")
            if kind == "returns":
                self._returns = message.returns
            else:
                rows = await self.graph.recorded_steps(self._rows(message.steps))
                yield replace(rows, marks=self._marks.take_marks(), attempts=self._marks.take_attempts())

    async def returning(self, new: NewExecution) -> NewExecution:
        """Return the execution with the shape of what it returns.

        Raises:
            UsageError: That refers to what is not there.
        """
        if self._returns is None:
            return new
        return replace(new, result_binding=await self.graph.result(self._returns))

    def _rows(self, batch: ImportedSteps) -> Iterator[InvocationRow | CompletedRow]:
        first = self.graph.count + 1
        for place, view in enumerate(viewed(batch), first):
            state, kind = _STATES.get(view.state), _KINDS.get(view.kind)
            if state is None or kind is None:
                text = "an imported step has completed, failed, was cancelled or was not reached"
                self.graph.report(f"steps[{place}]", text)
                state, kind = "completed", "step"
            spec = view.step
            started = _moment(view.started_at) if view.HasField("started_at") else None
            finished = _moment(view.finished_at) if view.HasField("finished_at") else None
            if state != "completed" or kind != "step" or view.attempt > 1 or has_rest(view) or has_rest(spec):
                yield self._whole_row(place, batch.steps[place - first], state, kind, started, finished)
                continue
            names: tuple[str, ...] = ()
            outputs = None
            if view.HasField("outputs"):
                names, outputs = self._outputs(view.outputs, place)
            yield self.graph.completed_step(spec, names, outputs, started, finished)

    def _whole_row(
        self, place: int, step: ImportedStep, state: str, kind: str, started: datetime | None, finished: datetime | None
    ) -> InvocationRow:
        self._note_rest(place, step, state, kind)
        names: tuple[str, ...] = ()
        outputs = failure = None
        if step.HasField("outputs"):
            names, outputs = self._completed_outputs(step.outputs, place)
        if step.HasField("failure"):
            failure = step.failure.SerializeToString()
        original = self._marks.original_call_id(place, step, state)
        recorded = Recorded(state, kind, started, finished, outputs, failure, names, original)
        return self.graph.recorded_step(step.step, recorded)

    def _note_rest(self, place: int, step: ImportedStep, state: str, kind: str) -> None:
        self.failures += state == "failed"
        self._marks.read(place, step)
        if kind == "wait":
            self._note_wait(place, state, step.wait, step.outputs)
        if step.yielded:
            self.yields.add(step.yielded, place)

    def _note_wait(self, place: int, state: str, wait: Wait, outputs: Outputs) -> None:
        """Keep what was asked; an answer that is large has its place in the store only once its batch is stored."""
        given = _WAIT_STATES.get(wait.state) or _IMPLIED_WAIT_STATES.get(state, WaitState.ABORTED)
        for name, text in (("schema", wait.schema), ("metadata", wait.metadata)):
            self._check_json(text, f"steps[{place}].wait.{name}")
        row = WaitRow(
            place,
            given.value,
            wait.question,
            wait.schema,
            wait.metadata,
            wait.answered_by,
            asked_at=moment(wait.asked_at) if wait.HasField("asked_at") else None,
            deadline=moment(wait.deadline) if wait.HasField("deadline") else None,
            answered_at=moment(wait.answered_at) if wait.HasField("answered_at") else None,
            answer=outputs.outputs[0].payload if outputs.outputs else None,
        )
        self._wait_bytes += wait.ByteSize() + outputs.ByteSize()
        if self._wait_bytes > _MOST_WAIT_BYTES:
            raise UsageError(
                f"the waits of an import take more than {_MOST_WAIT_BYTES:,} bytes; store large answers as objects",
                reason="TOO_MANY_WAITS",
                fields={"step": str(place)},
            )
        self.waits.append(row)

    def _check_json(self, text: str, field: str) -> None:
        try:
            if text:
                parse_json_text(text)
        except UsageError as error:
            self.graph.report(field, str(error))

    def _outputs(self, serialized: bytes, place: int) -> tuple[tuple[str, ...], bytes]:
        """The names of a step's outputs, and the outputs as they are stored."""
        known = self._known_outputs.get(serialized)
        if known is not None:
            return known, serialized
        names, stored = self._completed_outputs(Outputs.FromString(serialized), place)
        is_small = len(serialized) <= _SMALL_OUTPUTS and len(self._known_outputs) < _MOST_KNOWN_OUTPUTS
        if is_small and stored == serialized:
            self._known_outputs[serialized] = names
        return names, stored

    def _completed_outputs(self, outputs: Outputs, place: int) -> tuple[tuple[str, ...], bytes]:
        names = []
        for output in outputs.outputs:
            payload = output.payload
            names.append(output.name)
            if not self._values.is_complete(payload):
                self.graph.complete_output(place, outputs, payload, f"steps[{place}].outputs.{output.name}")
        return tuple(names), outputs.SerializeToString()


def _moment(serialized: bytes) -> datetime:
    return moment(Timestamp.FromString(serialized))
