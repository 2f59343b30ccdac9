"""Calls of steps, as they were when they were fetched."""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dalsegno.client.artifacts import Artifact
from dalsegno.client.identity import call_in_execution, output_id
from dalsegno.client.progress import progress_of
from dalsegno.client.sequences import NamedSequence
from dalsegno.client.times import moment
from dalsegno.errors import Failure, NotFoundError
from dalsegno.failures import failure_of
from dalsegno.states import InvocationState
from dalsegno.step_context import Progress
from dalsegno.v1 import execution_pb2
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListAttemptsRequest

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach


class Checkpoint:
    """One call of a step in an execution."""

    def __init__(self, message: execution_pb2.Invocation, exec_id: str, reach: Reach) -> None:
        self._message = message
        self._exec_id = exec_id
        self._reach = reach

    @property
    def name(self) -> str:
        """The name of the step."""
        return self._message.name

    @property
    def invocation_id(self) -> str:
        """Its readable ID."""
        return self._message.invocation_id

    @property
    def number(self) -> int:
        """Its number, the same in every replay of the execution."""
        return self._message.number

    @property
    def call_id(self) -> str:
        """The UUID of the call that supplies its outputs."""
        return self._message.call_id

    @property
    def original_call_id(self) -> str | None:
        """The call in an earlier execution that it was reused from."""
        return self._message.original_call_id or None

    @property
    def status(self) -> InvocationState:
        """Its state."""
        return invocation_state(self._message.state)

    @property
    def stale_inputs(self) -> bool:
        """Whether it was reused although its inputs would be others now, because flow inputs were overridden."""
        return self._message.stale_inputs

    @property
    def output_overridden(self) -> bool:
        """Whether its output is overridden in this execution."""
        return self._message.output_overridden

    @property
    def overridden_inputs(self) -> tuple[str, ...]:
        """Its inputs that are overridden in this execution."""
        return tuple(self._message.overridden_inputs)

    @property
    def code_digest(self) -> str | None:
        """The digest of the code that ran."""
        return self._message.code_digest or None

    @property
    def attempt(self) -> int:
        """The attempts used so far."""
        return self._message.attempt

    @property
    def progress(self) -> Progress | None:
        """How far its last attempt had come when that was last heard of; None where its code does not say."""
        return progress_of(self._message)

    @property
    def failure(self) -> Failure | None:
        """Why it failed."""
        return failure_of(self._message.failure) if self._message.HasField("failure") else None

    @property
    def failed_attempts(self) -> list[Failure]:
        """Why its earlier attempts failed."""
        request = ExecutionServiceListAttemptsRequest(execution=self._exec_id, number=self.number)
        response = self._reach.connection.call(lambda stubs: stubs.executions.ListAttempts, request)
        return [failure_of(attempt.failure) for attempt in response.attempts]

    @property
    def started_at(self) -> dt.datetime | None:
        """When the last attempt started."""
        return moment(self._message, "started_at")

    @property
    def finished_at(self) -> dt.datetime | None:
        """When the last attempt ended."""
        return moment(self._message, "finished_at")

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    @cached_property
    def artifacts(self) -> NamedSequence[Artifact]:
        """Its outputs in the order of their declaration; ``artifacts["model"]`` is the one of this name."""
        outputs = [
            Artifact(self._output_id(index), output.name, output.payload, self._reach.storage)
            for index, output in enumerate(self._message.outputs.outputs)
        ]
        return NamedSequence("artifact", lambda one: one.name, lambda _: (outputs, ""))

    def load(self) -> Any:
        """Return what the step returned: the value of its one output, or a tuple of several.

        Raises:
            NotFoundError: If it has no outputs, as it has not completed.
        """
        values = tuple(artifact.load() for artifact in self.artifacts)
        if not values:
            raise NotFoundError(
                f"{self.invocation_id} of execution {self._exec_id} has no output: it is {self.status}",
                reason="NO_OUTPUT",
                fields={"invocation_id": self.invocation_id, "status": self.status},
            )
        return values[0] if len(values) == 1 else values

    def __repr__(self) -> str:
        marks = "".join(f" {mark}" for mark in ("output_overridden", "stale_inputs") if getattr(self, mark))
        return f"<Checkpoint {self.invocation_id} {self.status}{marks} {self.call_id}>"

    def _repr_html_(self) -> str:
        return f"<table>{self._row_html()}</table>"

    def _row_html(self) -> str:
        seconds = "" if self.seconds is None else f"{self.seconds:.3f}"
        outputs = ", ".join(self.artifacts.names())
        cells = (self.invocation_id, self.status, seconds, outputs)
        return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"

    def _output_id(self, index: int) -> UUID:
        # A reused output keeps its ID; an overridden one has that of its place in this execution.
        own = call_in_execution(UUID(self._exec_id), self.number)
        call = own if self.output_overridden else UUID(self.call_id)
        return output_id(call, self.number, index)


def invocation_state(message: execution_pb2.InvocationState.ValueType) -> InvocationState:
    """Return the state that a message says."""
    return InvocationState(execution_pb2.InvocationState.Name(message).removeprefix("INVOCATION_STATE_").lower())
