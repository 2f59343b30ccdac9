"""Executions, as they were when they were fetched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import cached_property, partial
from html import escape
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dalsegno.client.checkpoints import Checkpoint
from dalsegno.client.lanes import lane_of
from dalsegno.client.results import result_of
from dalsegno.client.sequences import LazyMapping, NamedSequence
from dalsegno.client.times import moment
from dalsegno.client.waits import Wait
from dalsegno.errors import ExecutionError, Failure, NotFoundError, StateError
from dalsegno.failures import failure_error, failure_of
from dalsegno.lanes import Lane
from dalsegno.replay_warnings import replay_warnings
from dalsegno.states import ExecutionState
from dalsegno.timeouts import seconds_of
from dalsegno.v1 import definition_pb2, execution_pb2, wait_service_pb2
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceGetRequest,
    ExecutionServiceListInvocationsRequest,
)

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach

PAGE_SIZE = 500


class Execution:
    """One run of a flow or pipeline.

    It shows what was known when it was fetched; `refresh` fetches it again.
    """

    def __init__(self, message: execution_pb2.Execution, reach: Reach, *, complete: bool = True) -> None:
        self._message = message
        self._reach = reach
        # Lists leave out inputs, results and tracebacks.
        self._complete = complete

    @property
    def exec_id(self) -> str:
        """Its UUID."""
        return self._message.id

    @property
    def name(self) -> str:
        """The readable name of the run, unique in its project."""
        return self._message.name

    @property
    def project(self) -> str:
        """The project that its name lives in."""
        return self._message.project

    @property
    def flow(self) -> str:
        """The name of the flow or pipeline."""
        return self._message.flow

    @property
    def module(self) -> str:
        """The module that defines it; the file's stem for a script that was run directly."""
        return self._message.definition.module

    @property
    def kind(self) -> str:
        """``flow`` or ``pipeline``."""
        is_pipeline = self._message.kind == definition_pb2.DEFINITION_KIND_PIPELINE
        return "pipeline" if is_pipeline else "flow"

    @property
    def original_exec_id(self) -> str | None:
        """For a replay, the execution that it replays."""
        return self._message.original_exec_id or None

    @property
    def status(self) -> ExecutionState:
        """Its state."""
        return execution_state(self._message.state)

    @property
    def created_at(self) -> dt.datetime | None:
        """When it was created."""
        return moment(self._message, "created_at")

    @property
    def started_at(self) -> dt.datetime | None:
        """When the first of it started."""
        return moment(self._message, "started_at")

    @property
    def finished_at(self) -> dt.datetime | None:
        """When it ended."""
        return moment(self._message, "finished_at")

    @property
    def timeout(self) -> float | None:
        """How many seconds it may take, from its creation or its last retry on; None where there is no limit."""
        return seconds_of(self._message.timeout) if self._message.HasField("timeout") else None

    @property
    def lane(self) -> Lane:
        """Whether its work goes before that of bulk executions, or is such work."""
        return lane_of(self._message)

    @property
    def priority(self) -> int:
        """What it goes before in its lane: all that is lower."""
        return self._message.priority

    @property
    def deadline(self) -> dt.datetime | None:
        """When it ends as failed unless it has ended before."""
        return moment(self._message, "deadline")

    @property
    def debug(self) -> bool:
        """Whether it ran in a client's own process."""
        return self._message.debug

    @property
    def single_step(self) -> bool:
        """Whether it replays a single step."""
        return self._message.single_step

    @property
    def pending_reason(self) -> str | None:
        """Why it does not go on, where nothing can run it, and what to do."""
        return self._message.pending_reason or None

    @property
    def invocation_count(self) -> int:
        """How many invocations it has, those that it reuses included."""
        return self._message.invocation_count

    @property
    def requested_by(self) -> str | None:
        """For a replay, who asked for it."""
        return self._message.requested_by or None

    @property
    def overridden_inputs(self) -> tuple[str, ...]:
        """For a replay, the flow inputs that it overrides."""
        return tuple(self._message.overridden_inputs)

    @property
    def failure(self) -> Failure | None:
        """Why it failed."""
        message = self._whole()
        return failure_of(message.failure) if message.HasField("failure") else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of a replay, what its plan warned of, and at its end which recorded calls its body did not make."""
        return replay_warnings(self._whole())

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Its inputs by name, defaulted ones included; each is loaded when it is looked at."""
        values = self._whole().inputs.values
        return LazyMapping({name: partial(self._reach.storage.load, values[name]) for name in sorted(values)})

    @property
    def result(self) -> Any:
        """What the function returned; None before it has."""
        return result_of(self._whole(), self._reach.storage.load)

    @cached_property
    def checkpoints(self) -> NamedSequence[Checkpoint]:
        """The calls of its steps by number; ``checkpoints["train"]`` is the one with this invocation ID."""
        return NamedSequence(
            "checkpoint", lambda one: one.invocation_id, self._fetch_checkpoints, self._find_checkpoint
        )

    @cached_property
    def waits(self) -> NamedSequence[Wait]:
        """Its waits in the order in which they were asked; ``waits["approve"]`` is the one with this invocation ID."""
        return NamedSequence("wait", lambda one: one.invocation_id, self._fetch_waits)

    def refresh(self) -> Execution:
        """Return the execution as it is now."""
        return self._reach.execution(self.exec_id)

    def raise_failure(self) -> None:
        """Do nothing where it completed.

        Raises:
            UserCodeError: If user code failed.
            DivergenceError: If its body did not repeat what was recorded.
            ExecutionError: If it failed otherwise, was cancelled, or has not ended.
        """
        what = f"{self.kind} {self.flow!r} (run {self.name}, {self.exec_id})"
        match self.status:
            case ExecutionState.COMPLETED:
                return
            case ExecutionState.FAILED:
                raise failure_error(self._whole().failure, self.exec_id, what)
            case ExecutionState.CANCELLED:
                raise ExecutionError(f"{what} was cancelled", reason="CANCELLED", exec_id=self.exec_id)
            case _:
                raise ExecutionError(f"{what} is {self.status}", reason="NOT_FINISHED", exec_id=self.exec_id)

    def __repr__(self) -> str:
        replay = f" replay of {self.original_exec_id}" if self.original_exec_id else ""
        return f"<Execution {self.name} of {self.flow} {self.status} {self.exec_id}{replay}>"

    def _repr_html_(self) -> str:
        rows = "".join(one._row_html() for one in self.checkpoints[:100])
        title = f"{escape(self.flow)} · {escape(self.name)} · <b>{self.status}</b>"
        head = "<tr><th>checkpoint</th><th>status</th><th>seconds</th><th>outputs</th></tr>"
        return f"<p>{title}<br><code>{self.exec_id}</code></p><table>{head}{rows}</table>"

    def _whole(self) -> execution_pb2.Execution:
        if not self._complete:
            request = ExecutionServiceGetRequest(execution=self.exec_id, project=self.project)
            response = self._reach.connection.call(lambda stubs: stubs.executions.Get, request)
            self._message, self._complete = response.execution, True
        return self._message

    def _fetch_checkpoints(self, token: str) -> tuple[list[Checkpoint], str]:
        request = ExecutionServiceListInvocationsRequest(execution=self.exec_id, page_size=PAGE_SIZE, page_token=token)
        page = self._reach.connection.call(lambda stubs: stubs.executions.ListInvocations, request)
        return [self._checkpoint(one) for one in page.invocations if _is_step(one)], page.next_page_token

    def call(self, call_id: UUID) -> Checkpoint:
        """Return the checkpoint whose outputs a call supplies.

        Raises:
            NotFoundError: If there is none.
        """
        found = self._selected(f"call:{call_id}") or self.checkpoints
        for checkpoint in found:
            if checkpoint.call_id == str(call_id):
                return checkpoint
        raise NotFoundError(
            f"run {self.name} ({self.exec_id}) has no call {call_id}",
            reason="CALL_NOT_FOUND",
            fields={"call_id": str(call_id)},
        )

    def _find_checkpoint(self, invocation_id: str) -> Checkpoint | None:
        return next(iter(self._selected(f"invocation:{invocation_id}")), None)

    def _selected(self, selector: str) -> list[Checkpoint]:
        request = ExecutionServiceListInvocationsRequest(execution=self.exec_id, selector=selector)
        try:
            page = self._reach.connection.call(lambda stubs: stubs.executions.ListInvocations, request)
        except (NotFoundError, StateError):
            return []
        return [self._checkpoint(one) for one in page.invocations if _is_step(one)]

    def _checkpoint(self, message: execution_pb2.Invocation) -> Checkpoint:
        return Checkpoint(message, self.exec_id, self._reach)

    def _fetch_waits(self, token: str) -> tuple[list[Wait], str]:
        request = wait_service_pb2.WaitServiceListRequest(execution=self.exec_id, page_size=PAGE_SIZE, page_token=token)
        page = self._reach.connection.call(lambda stubs: stubs.waits.List, request)
        return [Wait(one, self._reach) for one in page.waits], page.next_page_token


def execution_state(message: execution_pb2.ExecutionState.ValueType) -> ExecutionState:
    """Return the state that a message says."""
    return ExecutionState(execution_pb2.ExecutionState.Name(message).removeprefix("EXECUTION_STATE_").lower())


def _is_step(message: execution_pb2.Invocation) -> bool:
    return message.kind != execution_pb2.INVOCATION_KIND_WAIT
