"""``client.executions``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dalsegno.client import answers, code_here
from dalsegno.client.connection import new_request_id
from dalsegno.client.executions import Execution
from dalsegno.client.identity import execution_text
from dalsegno.client.listing import list_request, listed
from dalsegno.client.logs import PAGE_SIZE, Log
from dalsegno.client.plans import Plan
from dalsegno.client.replay_request import ReplayRequest
from dalsegno.client.replays import create_replay, plan_replay
from dalsegno.client.storage import Uploads
from dalsegno.client.waits import Wait
from dalsegno.errors import UsageError
from dalsegno.lanes import Lane, checked_urgency
from dalsegno.runnables import Flow, FlowRun, Pipeline, PipelineRun
from dalsegno.states import ExecutionState
from dalsegno.timeouts import checked_timeout
from dalsegno.v1 import log_service_pb2
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceCancelRequest,
    ExecutionServiceDeleteRequest,
    ExecutionServiceResumeRequest,
    ExecutionServiceRetryRequest,
)

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach

_PAGE_SIZE = 200


class Executions:
    """Reads, replays, answers and ends executions.

    Wherever an execution is asked for, its ID, a unique prefix or suffix of it, its run name, or an object
    that stands for it will do.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def get(self, exec_id: object) -> Execution:
        """Return an execution as it is now.

        Raises:
            NotFoundError: If there is none.
            StateError: If a shortened ID fits several.
        """
        return self._reach.execution(exec_id)

    def list(
        self,
        *,
        flow: str | None = None,
        status: str | ExecutionState | Iterable[str] | None = None,
        original_exec_id: object = None,
        all_projects: bool = False,
        page_size: int = _PAGE_SIZE,
    ) -> Iterator[Execution]:
        """Iterate over executions, the newest first; pages are fetched as they are reached.

        Args:
            flow: Only those of this flow or pipeline.
            status: Only those in this state, or one of these.
            original_exec_id: Only replays of this execution.
            all_projects: Whether those of other projects come too.
            page_size: How many are fetched at once.

        Raises:
            UsageError: If a state is none.
        """
        request = list_request(
            self._reach,
            flow=flow,
            status=status,
            original_exec_id=original_exec_id,
            all_projects=all_projects,
            page_size=page_size,
        )
        return listed(self._reach, request)

    def start(
        self,
        runnable: Flow[..., Any] | Pipeline[..., Any] | FlowRun[..., Any] | PipelineRun[..., Any],
        /,
        *args: object,
        **kwargs: object,
    ) -> Execution:
        """Start a flow or pipeline on this client's planner, and return the execution without waiting for it.

        Args:
            runnable: The flow or pipeline; with options of this run as ``article.with_options(timeout=60)``.
            *args: Its arguments.
            **kwargs: Its arguments by keyword.

        Raises:
            UsageError: If it is none, the arguments do not fit, or a value cannot be stored.
        """
        from dalsegno.client import starts

        return starts.start_on(self._reach, runnable, args, kwargs)

    def replay(
        self,
        exec_id: object,
        *,
        from_: str | Sequence[str] | None = None,
        skip: Sequence[str] | None = None,
        skip_successful_steps: bool = False,
        overrides: Mapping[str, object] | None = None,
        step_input_overrides: Mapping[str, Mapping[str, object]] | None = None,
        rerun_changed_code: bool = False,
        on_stale: str | None = None,
        expect_plan: str | None = None,
        inputs: Mapping[str, object] | None = None,
        timeout: float | timedelta | None = None,
        lane: Lane | str | None = None,
        priority: int | None = None,
        **flow_inputs: object,
    ) -> Execution:
        """Create a replay, and return it without waiting for it.

        At most one of `from_`, `skip` and `skip_successful_steps` says what re-executes. Without them it is
        the roots of the overrides, or of changed code, with everything downstream; and everything where there
        are none of these. Nothing that is affected is ever reused.

        Args:
            exec_id: The execution that is replayed. It must not be running.
            from_: One selector or several: a step's name, an invocation ID or a call ID. These and everything
                downstream re-execute.
            skip: Invocation IDs, or ``all:NAME``; everything else re-executes.
            skip_successful_steps: Reuse whatever succeeded and is not touched by an override.
            overrides: ``checkpoint.<selector>`` to the value that replaces the output of that call. A value
                is a plain one, or an existing artifact: an `ArtifactRef` or its UUID.
            step_input_overrides: Invocation ID to input name to the value that replaces that input.
            rerun_changed_code: Re-execute steps whose code differs from what was recorded.
            on_stale: What happens to a reused call whose inputs differ only because flow inputs were
                overridden: ``"reuse"`` marks it `stale_inputs` (the default), ``"rerun"`` re-executes it,
                ``"fail"`` refuses.
            expect_plan: The digest of the plan that was agreed to; another plan is refused.
            inputs: Flow inputs that are replaced; all others are carried over as recorded.
            timeout: Seconds, or a timedelta, that the replay may take, waits included; as long as its source where
                none is given.
            lane: ``"live"`` or ``"bulk"``; live where none is given, and bulk where thousands of steps run again.
            priority: From -100 to 100: within a lane the higher one goes first.
            **flow_inputs: The same, where no argument of this method has the name.

        Raises:
            UsageError: If the request is wrong, with everything that is.
            StateError: If a selector is ambiguous or unknown, the source is running, or the plan is another
                one.
            NotFoundError: If the execution or an artifact does not exist.
        """
        request = ReplayRequest(
            from_=from_,
            skip=skip,
            skip_successful_steps=skip_successful_steps,
            overrides=overrides,
            step_input_overrides=step_input_overrides,
            rerun_changed_code=rerun_changed_code,
            on_stale=on_stale,
            expect_plan=expect_plan,
            inputs=inputs,
            flow_inputs=flow_inputs,
            timeout=checked_timeout("the replay", timeout),
            urgency=checked_urgency("the replay", lane, priority),
        )
        return self.replay_request(exec_id, request)

    def plan(
        self,
        exec_id: object,
        *,
        from_: str | Sequence[str] | None = None,
        skip: Sequence[str] | None = None,
        skip_successful_steps: bool = False,
        overrides: Mapping[str, object] | None = None,
        step_input_overrides: Mapping[str, Mapping[str, object]] | None = None,
        rerun_changed_code: bool = False,
        on_stale: str | None = None,
        expect_plan: str | None = None,
        inputs: Mapping[str, object] | None = None,
        **flow_inputs: object,
    ) -> Plan:
        """Return what `replay` with the same arguments would do; nothing is created."""
        request = ReplayRequest(
            from_=from_,
            skip=skip,
            skip_successful_steps=skip_successful_steps,
            overrides=overrides,
            step_input_overrides=step_input_overrides,
            rerun_changed_code=rerun_changed_code,
            on_stale=on_stale,
            expect_plan=expect_plan,
            inputs=inputs,
            flow_inputs=flow_inputs,
        )
        here = code_here.for_source(self._reach, exec_id, pin=False)
        with request.hinting():
            return plan_replay(self._reach, execution_text(exec_id), request, here)

    def replay_request(self, exec_id: object, request: ReplayRequest) -> Execution:
        """Create a replay from a request that is put together already."""
        here = code_here.for_source(self._reach, exec_id, pin=True)
        uploads = Uploads(self._reach.storage)
        with request.hinting():
            return create_replay(self._reach, execution_text(exec_id), request, here, uploads)

    def wait(self, exec_id: object, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended, and return it, whether it failed or not.

        Args:
            exec_id: Which one.
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: If it has not ended by then.
        """
        return self._reach.finished(exec_id, timeout)

    def input(self, exec_id: object, *, value: object, wait: str | None = None) -> Wait:
        """Answer a wait; the execution goes on by itself.

        Args:
            exec_id: Which one.
            value: The answer; it must fit the schema of the wait.
            wait: The name or invocation ID of the wait; may be left out where one is pending.

        Raises:
            WaitValidationError: If the answer does not fit; the wait stays open.
            StateError: If there is no such pending wait, or several and no name.
        """
        return answers.answer_wait(self._reach, exec_id, wait, value)

    def logs(self, exec_id: object, invocation: str | None = None) -> Log:
        """Return what the code of an execution has logged and printed, by time.

        That is what `logging` is configured to let through, and what is written to ``sys.stdout`` and ``sys.stderr``
        while a step or the body of a flow runs; not what other processes and C code write. A replay has none of the
        calls that it reuses. Lines of what has ended are there; those of what runs come within a second.

        Args:
            exec_id: Which one.
            invocation: A selector; only lines of this call, or with ``all:NAME`` of all calls of a step.

        Returns:
            An iterable of `LogLine`; nothing is fetched, and no error raised, before it is iterated over.

        Raises:
            UsageError: If the selector is blank.
            NotFoundError: If there is no such execution.
            StateError: If the selector is unknown or ambiguous.
        """
        if invocation is not None and not invocation.strip():
            raise UsageError(
                "the selector of an invocation is blank; leave it out for all lines", reason="BLANK_SELECTOR"
            )
        request = log_service_pb2.LogServiceListRequest(
            execution=execution_text(exec_id),
            project=self._reach.project,
            selector=invocation or "",
            page_size=PAGE_SIZE,
        )
        return Log(request, self._reach)

    def cancel(self, exec_id: object, reason: str = "") -> Execution:
        """Cancel an execution. One that is cancelled already stays so.

        Args:
            exec_id: Which one.
            reason: Why; kept with the execution.

        Raises:
            StateError: If it has completed or failed.
        """
        request = ExecutionServiceCancelRequest(
            execution=execution_text(exec_id), project=self._reach.project, reason=reason
        )
        response = self._reach.connection.call(lambda stubs: stubs.executions.Cancel, request)
        return Execution(response.execution, self._reach)

    def retry(self, exec_id: object) -> Execution:
        """Re-run, in place, what ended an execution and what never ran; everything else stays as it is.

        In a pipeline these are the steps that failed, were cancelled, or were not reached. The body of a flow runs
        again from the top: calls that have completed, and failures that the body has caught, are handed to it as they
        are recorded; the call whose failure ended it is made again. So it is after a divergence, once the code is
        mended. Waits that were not answered, timed out, or were refused last are asked again. Replays that were made
        of it do not change.

        Where this process runs the code of the execution itself, that code runs it; else any executor that has it.

        Args:
            exec_id: Which one. It must have failed, or been cancelled.

        Returns:
            The execution, running again.

        Raises:
            StateError: If it has not ended, has completed, or has nothing to run again.
        """
        request = ExecutionServiceRetryRequest(
            execution=execution_text(exec_id),
            project=self._reach.project,
            request_id=new_request_id(),
            pinned=code_here.pinned(self._reach, exec_id),
        )
        response = self._reach.connection.call(lambda stubs: stubs.executions.Retry, request)
        return Execution(response.execution, self._reach)

    def resume(self, exec_id: object) -> Execution:
        """Put a waiting execution back to work whose waits have been answered.

        As a rule it goes on by itself as soon as they are; resuming one that does changes nothing.

        Args:
            exec_id: Which one.

        Raises:
            StateError: If a wait is pending, with its name; or if it has ended.
        """
        request = ExecutionServiceResumeRequest(execution=execution_text(exec_id), project=self._reach.project)
        response = self._reach.connection.call(lambda stubs: stubs.executions.Resume, request)
        return Execution(response.execution, self._reach)

    def abort_wait(self, exec_id: object, *, wait: str | None = None) -> Execution:
        """Abort a wait instead of answering it: the execution is cancelled.

        Args:
            exec_id: Which one.
            wait: The name or invocation ID of the wait; may be left out where one is pending.

        Raises:
            StateError: If there is no such pending wait, or several and no name.
        """
        return answers.abort_wait(self._reach, exec_id, wait)

    def delete(self, exec_id: object) -> None:
        """Delete an execution that has ended, with everything recorded of it.

        A replay reads what it reuses from its source, and from that one's sources, so that these stay until it is
        deleted. After sixteen generations a replay has copies instead. The values of those stay, but the call and
        artifact IDs of what has been deleted can be looked up no more. What it alone had in the object store goes a
        day later; export with ``embed=True`` what is to be imported again.

        Args:
            exec_id: Which one.

        Raises:
            NotFoundError: If there is no such execution.
            StateError: If it has not ended, or replays still read from it.
        """
        request = ExecutionServiceDeleteRequest(execution=execution_text(exec_id), project=self._reach.project)
        self._reach.connection.call(lambda stubs: stubs.executions.Delete, request, idempotent=False)

    def import_(self, record: str | Path | Mapping[str, Any] | Iterable[Any]) -> Execution:
        """Create a finished execution from a record of one that ran elsewhere; it can be replayed like any other.

        All of it is checked, and nothing is stored unless all of it is right. Records of any size pass through as a
        stream: as a file of JSON Lines, as a large document with ``steps`` last, or as an iterator.

        Args:
            record: A path; the record as a dict; or an iterator over its header and then its steps. The format is that
                of `dalsegno.records`.

        Returns:
            The execution. It has the recorded run name, or another one where that is taken.

        Raises:
            UsageError: If the record is wrong, with the places: ``steps[17].inputs.xs``.
            NotFoundError: If it names an artifact that does not exist.
            OSError: If the file cannot be read.
        """
        from dalsegno.client.importing import import_record

        return import_record(self._reach, record)

    @overload
    def export(self, exec_id: object, path: None = None, *, embed: bool = False) -> dict[str, Any]: ...
    @overload
    def export(self, exec_id: object, path: str | Path, *, embed: bool = False) -> Path: ...
    def export(self, exec_id: object, path: str | Path | None = None, *, embed: bool = False) -> dict[str, Any] | Path:
        """Return an execution as a record that `import_` takes, or write it to a file.

        A replay is exported whole, with what it reuses.

        Args:
            exec_id: Which one. It must have ended.
            path: A file, written as JSON Lines where its name ends in ``.jsonl`` or ``.ndjson``, else as one document;
                either is streamed. None returns the record as a dict.
            embed: Whether values in the object store become part of the record, for a planner with another store.
                Otherwise they are referred to.

        Raises:
            StateError: If it has not ended.
            OSError: If the file cannot be written.
        """
        from dalsegno.client.importing import export_record

        return export_record(self._reach, exec_id, path, embed=embed)
