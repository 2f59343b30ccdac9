"""Writes executions out as imports take them, in memory that does not grow with them."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterable, Mapping
from uuid import UUID

from asyncpg import Record

from dalsegno.errors import StateError
from dalsegno.v1.definition_pb2 import Definition, DefinitionRef
from dalsegno.v1.execution_pb2 import (
    INVOCATION_KIND_STEP,
    INVOCATION_KIND_WAIT,
    INVOCATION_STATE_CANCELLED,
    INVOCATION_STATE_COMPLETED,
    INVOCATION_STATE_FAILED,
    INVOCATION_STATE_NOT_REACHED,
    Failure,
)
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceExportResponse,
    ImportedStep,
    ImportedSteps,
    ImportHeader,
    StepSpec,
)
from dalsegno.v1.value_pb2 import Binding, FlowInputs, Inputs, Outputs, Payload, Value
from dalsegno.v1.wait_service_pb2 import Wait
from dalsegno_planner.core.execution import Execution, WaitState
from dalsegno_planner.core.ids import ExecutionId, call_id
from dalsegno_planner.rpc.convert import (
    KIND_MESSAGES,
    execution_state_message,
    overridden_inputs,
    wait_state_message,
)
from dalsegno_planner.store import exports
from dalsegno_planner.store.bindings import fill_in, references, renumber
from dalsegno_planner.store.pool import Connection, Pool
from dalsegno_planner.times import fill, timestamp

_STEPS_IN_MESSAGE = 1_000
_BYTES_IN_MESSAGE = 1 << 20

# A reused call has completed in the execution that supplies it; what has not come to run, never will.
_STATES = {
    "completed": INVOCATION_STATE_COMPLETED,
    "reused": INVOCATION_STATE_COMPLETED,
    "failed": INVOCATION_STATE_FAILED,
    "cancelled": INVOCATION_STATE_CANCELLED,
}


class Exporter:
    """Reads whole executions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def export(self, execution: Execution) -> AsyncIterator[ExecutionServiceExportResponse]:
        """Yield the messages that would import an execution.

        Raises:
            StateError: It has not ended.
        """
        if not execution.state.finished:
            raise StateError(
                f"execution {execution.id} is {execution.state}, and only one that has ended can be exported; wait "
                "for its end, or cancel it",
                reason="EXECUTION_NOT_FINISHED",
                fields={"execution": str(execution.id), "state": execution.state.value},
            )
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield ExecutionServiceExportResponse(header=await _header(connection, execution))
            steps = _Steps(execution.id, await exports.taken_by_single_step(connection, execution))
            async for rows in exports.calls(connection, execution):
                for row in rows:
                    steps.add(row)
                    if steps.is_full:
                        yield ExecutionServiceExportResponse(steps=steps.take())
            if steps.size:
                yield ExecutionServiceExportResponse(steps=steps.take())
            if execution.result_binding is not None:
                returns = Binding.FromString(execution.result_binding)
                renumber(returns, steps.place_of)
                yield ExecutionServiceExportResponse(returns=returns)


async def _header(connection: Connection, execution: Execution) -> ImportHeader:
    code = await exports.code_of(connection, execution)
    inputs = FlowInputs.FromString(execution.inputs).values
    return ImportHeader(
        project=execution.project,
        definition=DefinitionRef(module=execution.module, name=execution.flow),
        kind=KIND_MESSAGES[execution.kind],
        inputs={name: Value(payload=payload) for name, payload in inputs.items()},
        name=execution.name,
        state=execution_state_message(execution.state),
        result=None if execution.result is None else Value(payload=Payload.FromString(execution.result)),
        failure=None if execution.failure is None else Failure.FromString(execution.failure),
        started_at=timestamp(execution.started_at),
        finished_at=timestamp(execution.finished_at),
        definitions=_unique(code.definitions),
        shaping_inputs=code.shaping_inputs,
        code_digest=code.code_digest,
        original_exec_id="" if execution.source_id is None else str(execution.source_id),
        requested_by=execution.requested_by,
        overridden_inputs=overridden_inputs(execution),
        single_step=execution.single_step,
        debug=execution.debug,
    )


def _unique(documents: Iterable[bytes]) -> list[Definition]:
    return [Definition.FromString(document) for document in dict.fromkeys(documents)]


class _Steps:
    """Gathers steps for a message; refers to each by its place in the stream.

    Args:
        execution_id: Whose they are.
        taken: Outputs of calls that are not among them, by number: what takes one has its value.
    """

    def __init__(self, execution_id: ExecutionId, taken: Mapping[int, Outputs]) -> None:
        self._execution_id = execution_id
        self._taken = taken
        self.size = 0
        self._message = ImportedSteps()
        self._count = 0
        # Places by number: there may be millions of them.
        self._places = array("I", bytes(4))
        self._are_numbers = True

    @property
    def is_full(self) -> bool:
        """Whether what is gathered fills a message."""
        return self.size >= _BYTES_IN_MESSAGE or len(self._message.steps) >= _STEPS_IN_MESSAGE

    def take(self) -> ImportedSteps:
        """Return what is gathered, and begin anew."""
        message, self._message, self.size = self._message, ImportedSteps(), 0
        return message

    def place_of(self, number: int) -> int:
        """Return the place of a step that has been added; 0 of any other."""
        return self._places[number] if number < len(self._places) else 0

    def add(self, row: Record) -> None:
        """Add a call."""
        self._count += 1
        self._note(row["number"])
        step = self._message.steps.add()
        self._describe(step.step, row)
        step.kind = INVOCATION_KIND_WAIT if row["kind"] == "wait" else INVOCATION_KIND_STEP
        step.state = _STATES.get(row["state"], INVOCATION_STATE_NOT_REACHED)
        if row["failure"] is not None:
            step.failure.ParseFromString(row["failure"])
        if row["outputs"] is not None:
            step.outputs.ParseFromString(row["outputs"])
        if row["started_at"] is not None:
            fill(step.started_at, row["started_at"])
        if row["finished_at"] is not None:
            fill(step.finished_at, row["finished_at"])
        if row["wait_state"] is not None:
            step.wait.CopyFrom(_wait(row))
        step.yielded = row["yielded"] or 0
        _add_marks(step, row)
        if step.state == INVOCATION_STATE_COMPLETED:
            step.original_call_id = str(self._original_call(row) or "")
        self.size += len(row["inputs"]) + len(row["outputs"] or b"") + 200

    def _original_call(self, row: Record) -> UUID | None:
        """The call that one was reused from; of an import, the one that its record says."""
        supplier: UUID = row["supplier_id"]
        return row["original_call_id"] if supplier == self._execution_id else call_id(supplier, row["number"])

    def _note(self, number: int) -> None:
        if number >= len(self._places):
            self._places.extend(bytes(max(number + 1, 2 * len(self._places)) - len(self._places)))
        self._places[number] = self._count
        self._are_numbers = self._are_numbers and number == self._count

    def _describe(self, spec: StepSpec, row: Record) -> None:
        spec.invocation_id = row["invocation_id"]
        definition, inputs = spec.definition, spec.inputs
        definition.name = row["name"]
        definition.module = row["module"]
        spec.code_digest = row["code_digest"]
        inputs.ParseFromString(row["inputs"])
        if not self._are_numbers:
            self._place(inputs)
        if row["after"] or inputs.comes_after:
            after = [*row["after"], *inputs.comes_after]
            spec.after.extend(place for place in map(self.place_of, after) if place)
            inputs.ClearField("comes_after")
        if row["options"]:
            spec.options.ParseFromString(row["options"])

    def _place(self, inputs: Inputs) -> None:
        """Let inputs refer to places instead of numbers."""
        if self._taken:
            fill_in(inputs, self._taken)
        shown = {number for number in references(inputs).numbers if self.place_of(number)}
        for name in list(inputs.bindings):
            binding = inputs.bindings[name]
            if references(Inputs(bindings={name: binding})).numbers <= shown:
                renumber(binding, self.place_of)
            else:
                # It took the output of a call that the execution does not show.
                del inputs.bindings[name]


def _add_marks(step: ImportedStep, row: Record) -> None:
    """Add what few steps have: overrides, and attempts besides the first."""
    step.attempt = row["attempt"]
    step.stale_inputs = row["stale_inputs"]
    if row["overridden_inputs"]:
        step.overridden_inputs.extend(row["overridden_inputs"])
    if row["overridden"]:
        step.output_overridden = True
        if row["returned"] is not None:
            step.returned.ParseFromString(row["returned"])
    for one in row["failed_attempts"] or ():
        failure = None if one["failure"] is None else Failure.FromString(one["failure"])
        step.failed_attempts.add(
            attempt=one["attempt"],
            executor=one["executor"],
            started_at=timestamp(one["started_at"]),
            finished_at=timestamp(one["finished_at"]),
            failure=failure,
        )


def _wait(row: Record) -> Wait:
    return Wait(
        question=row["question"],
        schema=row["schema"],
        metadata=row["metadata"],
        state=wait_state_message(WaitState(row["wait_state"])),
        asked_at=timestamp(row["asked_at"]),
        deadline=timestamp(row["deadline"]),
        answered_by=row["answered_by"],
        answered_at=timestamp(row["answered_at"]),
    )
