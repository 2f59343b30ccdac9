"""What models and handles need to fetch more: the connection, the values, and a fresh look at an execution."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from dalsegno.client import left_behind
from dalsegno.client.connection import Connection
from dalsegno.client.executions import Execution, execution_state
from dalsegno.client.identity import execution_text
from dalsegno.client.storage import Storage
from dalsegno.errors import BackendError
from dalsegno.local.join import has_joined
from dalsegno.states import ExecutionState
from dalsegno.v1 import execution_pb2
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceGetRequest,
    ExecutionServiceWatchRequest,
    ExecutionServiceWatchResponse,
)

_log = logging.getLogger("dalsegno")

_OUTAGE_S = 300.0
"""How long who waits for an execution waits for a planner that answers."""
_HEARD_S = 60.0
"""A stream that has held for so long has been answered, though there was nothing to tell."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A planner, and how its values are read."""

    connection: Connection
    storage: Storage

    @property
    def project(self) -> str:
        """The project in which run names are looked up."""
        return self.connection.project

    def execution(self, execution: object) -> Execution:
        """Fetch an execution.

        Raises:
            NotFoundError: If there is none.
        """
        request = ExecutionServiceGetRequest(execution=execution_text(execution), project=self.project)
        response = self.connection.call(lambda stubs: stubs.executions.Get, request)
        return Execution(response.execution, self)

    def finished(self, execution: object, timeout: float | None = None, *, telling: bool = True) -> Execution:
        """Wait until an execution has ended, and return it.

        Args:
            execution: Which one.
            timeout: Seconds; None waits for as long as it takes.
            telling: Whether it is logged that it asks something, or that nobody has its code.

        Raises:
            TimeoutError: If it has not ended by then; it goes on regardless.
        """
        ended = self._finished(execution, timeout, telling=telling)
        left_behind.forget(ended.exec_id)
        return ended

    def _finished(self, execution: object, timeout: float | None, *, telling: bool) -> Execution:
        request = ExecutionServiceWatchRequest(
            execution=execution_text(execution), project=self.project, execution_only=True, holdups_only=True
        )
        told = ""
        try:
            for message in self.happenings(request, timeout):
                if execution_state(message.execution.state).finished:
                    return Execution(message.execution, self)
                held_up = self._held_up(message.execution)
                if telling and held_up not in ("", told):
                    _log.warning("%s %s", message.execution.name, held_up)
                told = held_up
        except TimeoutError:
            last = self.execution(execution)
            if not last.status.finished:
                raise _not_finished(last, timeout) from None
            return last
        return self.execution(execution)

    def _held_up(self, execution: execution_pb2.Execution) -> str:
        """Return what an execution waits for that may never come by itself; empty where it goes on."""
        if execution_state(execution.state) is ExecutionState.WAITING:
            return f"waits for an answer: {_answering(execution.name)}"
        if execution.pending_reason and not has_joined(self.connection):
            return f"is held up: {execution.pending_reason}"
        return ""

    def happenings(
        self, request: ExecutionServiceWatchRequest, timeout: float | None = None
    ) -> Iterator[ExecutionServiceWatchResponse]:
        """Yield what happens to an execution until it ends, across restarts of planners and of their database.

        Args:
            request: What to watch; it is moved on to the last event.
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            BackendError: If no planner answers for minutes, or none has ever answered.
            TimeoutError: If the execution has not ended by then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        silent_since: float | None = None
        if not self.connection.has_been_answered:
            self.execution(request.execution)  # where none ever answered, that is said within seconds
        while True:
            began = time.monotonic()
            try:
                for message in self._watch(request, deadline):
                    silent_since = None
                    request.after_event = max(request.after_event, message.event)
                    yield message
            except BackendError as error:
                # The planner, or its database, is gone; the execution goes on when they are back.
                now = time.monotonic()
                if silent_since is None or now - began > _HEARD_S:
                    silent_since = now
                if error.reason == "UNIMPLEMENTED" or now - silent_since > _OUTAGE_S:
                    raise
                with suppress(BackendError):
                    self.execution(request.execution)  # asks until one answers, for some seconds
            else:
                return

    def _watch(
        self, request: ExecutionServiceWatchRequest, deadline: float | None
    ) -> Iterator[ExecutionServiceWatchResponse]:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        return self.connection.read_stream(lambda stubs: stubs.executions.Watch, request, timeout=left)


def _answering(name: str) -> str:
    return f"dalsegno executions input {name} --interactive"


def _not_finished(execution: Execution, timeout: float | None) -> TimeoutError:
    why = f": {execution.pending_reason}" if execution.pending_reason else ""
    if execution.status is ExecutionState.WAITING:
        why = f": it asks something; answer with: {_answering(execution.name)}"
    return TimeoutError(
        f"{execution.kind} {execution.flow!r} ({execution.exec_id}) is {execution.status} after {timeout} s{why}"
    )
