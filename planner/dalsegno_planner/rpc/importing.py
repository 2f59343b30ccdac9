"""Creates finished executions from records made elsewhere, all or nothing, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from dalsegno.errors import UsageError
from dalsegno.v1.execution_pb2 import ExecutionState as ExecutionStateMessage
from dalsegno.v1.execution_pb2 import InvocationKind as InvocationKindMessage
from dalsegno.v1.execution_pb2 import InvocationState as InvocationStateMessage
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceImportRequest,
    ImportedSteps,
    ImportHeader,
    StepSpec,
)
from dalsegno.v1.value_pb2 import Outputs
from dalsegno_planner.core.execution import Execution, ExecutionState, Outcome
from dalsegno_planner.rpc.convert import execution_state, moment
from dalsegno_planner.rpc.graphs import GraphReader, Recorded
from dalsegno_planner.rpc.headers import definition_rows, first_message, new_execution
from dalsegno_planner.rpc.streams import AlreadyCreated, gather, insert_graph, refuse_repeated
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store import executions
from dalsegno_planner.store.definitions import Definitions
from dalsegno_planner.store.invocations import GraphRows
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
        new, inputs = await new_execution(self._pool, header, self._values, module_required=False)
        code = definition_rows(new.project, header.definitions)
        record = _Record(GraphReader(new.id, new.project, inputs.values, self._values), self._values)
        batches = record.batches(messages)
        first = await gather(batches)
        try:
            async with self._pool.acquire() as connection:
                await executions.check_name(connection, new)
                await self._definitions.record(connection, new.project, code)
                async with connection.transaction():
                    await insert_graph(connection, first, batches)
                    outcome = await self._outcome(connection, header, record.failures)
                    created = await executions.record_finished(
                        connection, new, outcome, record.graph.count, record.failures
                    )
                    refuse_repeated(new, created)
                    return created
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

    def __init__(self, graph: GraphReader, values: ValueReader) -> None:
        self.graph = graph
        self._values = values
        self.failures = 0

    async def batches(self, messages: AsyncIterator[ExecutionServiceImportRequest]) -> AsyncIterator[GraphRows]:
        async for message in messages:
            if message.WhichOneof("message") != "steps":
                raise UsageError("only the first message of Import is a header", reason="SECOND_HEADER")
            yield await self.graph.recorded_steps(self._recorded(message.steps))

    def _recorded(self, batch: ImportedSteps) -> Iterator[tuple[StepSpec, Recorded]]:
        for place, step in enumerate(batch.steps, self.graph.count + 1):
            state, kind = _STATES.get(step.state), _KINDS.get(step.kind)
            if state is None or kind is None:
                text = "an imported step has completed, failed, was cancelled or was not reached"
                self.graph.report(f"steps[{place}]", text)
                continue
            self.failures += state == "failed"
            names: tuple[str, ...] = ()
            outputs = failure = started = finished = None
            if step.HasField("outputs"):
                names, outputs = self._outputs(step.outputs, place)
            if step.HasField("failure"):
                failure = step.failure.SerializeToString()
            if step.HasField("started_at"):
                started = moment(step.started_at)
            if step.HasField("finished_at"):
                finished = moment(step.finished_at)
            yield step.step, Recorded(state, kind, started, finished, outputs, failure, names)

    def _outputs(self, outputs: Outputs, place: int) -> tuple[tuple[str, ...], bytes]:
        """The names of a step's outputs, and the outputs as they are stored."""
        names = []
        for output in outputs.outputs:
            names.append(output.name)
            if not self._values.is_complete(output.payload):
                self.graph.complete_output(place, outputs, output.payload, f"steps[{place}].outputs.{output.name}")
        return tuple(names), outputs.SerializeToString()
