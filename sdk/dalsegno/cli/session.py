"""One command's conversation with a planner."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dalsegno.cli.messages import attempt_view, execution_view, step_view, step_views, wait_view
from dalsegno.cli.planned import plan_view
from dalsegno.cli.views import AttemptView, CallView, ExecutionView, OutputView, PlanView, StepView, WaitView
from dalsegno.errors import DalsegnoError, UsageError
from dalsegno.states import ExecutionState

if TYPE_CHECKING:
    from dalsegno.client import Client
    from dalsegno.client.connection import Connection
    from dalsegno.v1 import execution_pb2, value_pb2

ADDRESS_SETTING = "DALSEGNO_ADDRESS"
STEPS_PLANNED = 100
"""Of what re-runs, and of what is reused, as many are looked at."""
_PAGE = 1000
_SHOWN_BYTES = 1024 * 1024
"""Values above this are not fetched to be shown."""


class Session:
    """Reads executions as the command line shows them, and carries out what it is told to.

    Args:
        address: The planner; the embedded engine where none is given.
        project: The project that names live in.
    """

    def __init__(self, address: str | None = None, project: str | None = None) -> None:
        self._address = address
        self._project = project

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @cached_property
    def client(self) -> Client:
        """The client that users have."""
        from dalsegno.client import Client

        return Client(self._address, self._project)

    @property
    def connection(self) -> Connection:
        """The channel to the planner."""
        return self.client.reach.connection

    @property
    def project(self) -> str:
        """The project that names are looked up in."""
        return self.connection.project

    @property
    def is_local_engine(self) -> bool:
        """Whether the planner is that of the embedded engine."""
        return self.connection.is_local_engine

    def runs_code_here(self) -> bool:
        """Whether this process runs code for the planner: what nobody has now is taken by it in a moment."""
        from dalsegno.local.join import has_joined

        return has_joined(self.connection)

    def open(self) -> None:
        """Reach the planner now; the embedded engine starts if it does not run.

        Raises:
            BackendError: If it cannot be reached.
        """
        self.connection.address  # noqa: B018 - looking at it opens the connection

    # -- reading ------------------------------------------------------------------------------------------------

    def execution(self, execution: str) -> ExecutionView:
        """Return one execution, by its name, ID, or a unique prefix or suffix.

        Raises:
            NotFoundError: If there is none.
        """
        return execution_view(self.execution_message(execution), self._shown)

    def execution_message(self, execution: str) -> execution_pb2.Execution:
        """Return one execution as the planner has it."""
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceGetRequest

        request = ExecutionServiceGetRequest(execution=execution, project=self.project)
        return self.connection.call(lambda stubs: stubs.executions.Get, request).execution

    def executions(
        self, *, limit: int, flow: str | None, states: Sequence[ExecutionState], replays_of: str | None
    ) -> list[ExecutionView]:
        """Return the newest executions of the project, without inputs and results."""
        from dalsegno.v1 import execution_pb2
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest

        source = self.execution(replays_of).exec_id if replays_of else ""
        request = ExecutionServiceListRequest(
            project=self.project,
            flow=flow or "",
            states=[execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{state.name}") for state in states],
            original_exec_id=source,
        )
        found: list[ExecutionView] = []
        while len(found) < limit:
            request.page_size = min(_PAGE, limit - len(found))
            page = self.connection.call(lambda stubs: stubs.executions.List, request)
            found += [execution_view(message, self._shown) for message in page.executions]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return found

    def steps(self, execution: str, *, limit: int) -> list[StepView]:
        """Return the first steps and waits of an execution, those that it reuses included."""
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceListInvocationsRequest

        request = ExecutionServiceListInvocationsRequest(execution=execution, project=self.project)
        found: list[execution_pb2.Invocation] = []
        while len(found) < limit:
            request.page_size = min(_PAGE, limit - len(found))
            page = self.connection.call(lambda stubs: stubs.executions.ListInvocations, request)
            found += page.invocations
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return step_views(found)

    def calls(self, execution: str, selector: str) -> list[CallView]:
        """Return the calls that a selector names, with what they returned and how they failed before.

        Raises:
            StateError: If it names none, or is ambiguous.
        """
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceListInvocationsRequest

        exec_id = self.execution_message(execution).id
        request = ExecutionServiceListInvocationsRequest(execution=exec_id, selector=selector, page_size=_PAGE)
        page = self.connection.call(lambda stubs: stubs.executions.ListInvocations, request)
        return [
            CallView(step, self._outputs(message, exec_id), self._failed_attempts(message, exec_id))
            for message, step in zip(page.invocations, step_views(page.invocations), strict=True)
        ]

    def pending_waits(self, execution: str) -> list[WaitView]:
        """Return the questions that an execution asks, in the order in which it asked them."""
        from dalsegno.v1.wait_service_pb2 import WaitServiceListRequest

        request = WaitServiceListRequest(execution=execution, project=self.project, pending_only=True)
        page = self.connection.call(lambda stubs: stubs.waits.List, request)
        return [wait_view(message) for message in page.waits]

    def last_event(self, execution: str) -> int:
        """Return the number of the last event of an execution that has ended."""
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceWatchRequest

        request = ExecutionServiceWatchRequest(execution=execution, project=self.project, execution_only=True)
        return max(event.event for event in self.client.reach.happenings(request))

    def watch(self, execution: str, *, after_event: int = 0) -> Iterator[ExecutionView | StepView]:
        """Yield what happens to an execution, from its beginning or after an event, until it ends."""
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceWatchRequest

        request = ExecutionServiceWatchRequest(execution=execution, project=self.project, after_event=after_event)
        for event in self.client.reach.happenings(request):
            match event.WhichOneof("kind"):
                case "execution":
                    yield execution_view(event.execution, self._shown)
                case "invocation":
                    yield step_view(event.invocation, {})

    def plan(self, execution: str, *, limit: int = STEPS_PLANNED, **request: Any) -> PlanView:
        """Return what a replay would do; takes what ``Client.executions.plan`` takes."""
        plan = self.client.executions.plan(execution, **request)
        return plan_view(plan, self.execution_message(plan.source_exec_id).name, limit)

    # -- acting -------------------------------------------------------------------------------------------------

    def bring_code_of(self, execution: str) -> str:
        """Import the code of an execution, so that this process can run it; return why it cannot, else nothing.

        Only where the embedded engine serves, which may well have no worker: elsewhere the workers have the code.
        """
        if not self.is_local_engine:
            return ""
        from dalsegno.cli.loading import load_module

        module = self.execution_message(execution).definition.module
        try:
            load_module(module)
        except UsageError as error:
            return error.message
        return ""

    def cancel(self, execution: str, reason: str) -> ExecutionView:
        """Cancel an execution and return it; one that is cancelled already stays so."""
        return self.execution(self.client.executions.cancel(execution, reason).exec_id)

    def answer(self, execution: str, wait: str | None, value: object) -> tuple[WaitView, ExecutionView]:
        """Answer a wait; return both as they are now.

        Raises:
            WaitValidationError: If the answer does not fit; the wait stays open.
            StateError: If there is no such wait, or several and none is named.
        """
        answered = self.client.executions.input(execution, value=value, wait=wait)
        view = WaitView(answered.invocation_id, answered.status, answered.question, answered.schema)
        return view, self.execution(execution)

    def _outputs(self, message: execution_pb2.Invocation, exec_id: str) -> tuple[OutputView, ...]:
        from dalsegno.client.checkpoints import Checkpoint

        artifacts = Checkpoint(message, exec_id, self.client.reach).artifacts
        return tuple(
            OutputView(one.name, str(one.id), one.codec, one.size, self._shown(output.payload))
            for one, output in zip(artifacts, message.outputs.outputs, strict=True)
        )

    def _failed_attempts(self, message: execution_pb2.Invocation, exec_id: str) -> tuple[AttemptView, ...]:
        from dalsegno.v1.execution_service_pb2 import ExecutionServiceListAttemptsRequest

        request = ExecutionServiceListAttemptsRequest(execution=exec_id, number=message.number)
        found = self.connection.call(lambda stubs: stubs.executions.ListAttempts, request)
        return tuple(attempt_view(one) for one in found.attempts)

    # -- values -------------------------------------------------------------------------------------------------

    def _shown(self, payload: value_pb2.Payload) -> object:
        described = {"$codec": payload.codec, "size": payload.size}
        if payload.size > _SHOWN_BYTES:
            return described
        try:
            return self.client.reach.storage.load(payload)
        except DalsegnoError as error:  # a value that is gone is no reason to show nothing of its execution
            return described | {"problem": error.message}


def without_address() -> bool:
    """Forget ``DALSEGNO_ADDRESS`` in this process, so that the embedded engine is used; return whether it was set."""
    return bool(os.environ.pop(ADDRESS_SETTING, "").strip())


def engine_address_for_life() -> str:
    """Return the address of the embedded engine, kept running for as long as this process lives, whatever it becomes.

    The engine stops when nobody holds the lock of its users for a while, and locks end with the file descriptor: this
    one outlives the ``exec`` that turns this process into a worker.
    """
    from dalsegno import local
    from dalsegno.local.home import EngineHome
    from dalsegno.local.locks import FileLock

    address = local.ensure_engine()
    lock = FileLock.acquire(EngineHome.from_environment().users_lock, shared=True)
    os.set_inheritable(lock.fd, True)
    _locks_for_life.append(lock)
    return address


_locks_for_life: list[object] = []
