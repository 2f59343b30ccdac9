"""Runs the task of a flow body from its arguments to its last report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from dalsegno.arguments import call_arguments
from dalsegno.decorators import Flow
from dalsegno.durable import StepFuture, current_body
from dalsegno.errors import BackendError, DalsegnoError, DivergenceKind, NotFoundError, UsageError
from dalsegno.v1 import execution_pb2
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_DIVERGENCE, Failure
from dalsegno.v1.executor_service_pb2 import (
    BodyReturned,
    BodySuspended,
    ExecutorServiceWorkRequest,
    RecordedCall,
    Report,
    Returned,
    Task,
    TaskFailed,
)
from dalsegno_executor.attempts import timestamp
from dalsegno_executor.runner.bodies import Body
from dalsegno_executor.runner.call_reports import Reporting
from dalsegno_executor.runner.calls import Calls
from dalsegno_executor.runner.control import BodyEnd, Diverged, HandedBack, Refused, Suspension
from dalsegno_executor.runner.divergence import divergence_failure
from dalsegno_executor.runner.environment import Environment, Read
from dalsegno_executor.runner.failures import BACKEND, RUNTIME, USER_CODE, failure_of
from dalsegno_executor.runner.inbox import Inbox
from dalsegno_executor.runner.log_capture import Who, Writer
from dalsegno_executor.runner.turns import BodyLoop, Turns
from dalsegno_executor.runner.typed_inputs import typed_input


class BodyTaskRun:
    """One run of a body, in the thread that calls `run`.

    Args:
        task: The task.
        recorded: All recorded calls: the task's own, and those of its further pages.
        flow: The flow, as it is here; None where it is not.
        environment: Reads and stores values.
        reporting: Takes reports.
    """

    def __init__(
        self,
        task: Task,
        recorded: Sequence[RecordedCall],
        flow: Flow[..., Any] | None,
        environment: Environment,
        reporting: Reporting,
        inbox: Inbox,
    ) -> None:
        self._task = task
        self._flow = flow
        self._environment = environment
        self._reporting = reporting
        self._inbox = inbox
        self._started = time.time_ns()
        self._repeats = bool(recorded)
        pinned = bool(task.definition.pinned_digest)
        self._calls = Calls(task, recorded, pinned=pinned, environment=environment, ended=inbox.ended)

    def run(self) -> ExecutorServiceWorkRequest | Report:
        """Run the body, and return the last message of its task."""
        flow = self._flow
        wanted = self._task.definition
        if flow is None or wanted.pinned_digest not in ("", flow.digest):
            return self._failed(_missing(self._task, flow))
        body = Body(self._task, self._calls, self._environment, self._reporting, self._inbox)
        token = current_body.set(body)
        try:
            value = self._call(flow, body)
            body.wait_for_unseen()
            self._inbox.check()
        except BodyEnd as ending:
            return self._ended(self._inbox.ending or ending)
        except _Unfit as unfit:
            return self._failed(unfit.failure)
        except BaseException as error:  # noqa: BLE001 - SystemExit too ends the body, and never the runner
            if self._inbox.ending is not None:
                return self._ended(self._inbox.ending)
            return self._raised(error, body)
        finally:
            current_body.reset(token)
        return self._returned(value)

    # Running it.

    def _call(self, flow: Flow[..., Any], body: Body) -> object:
        args, kwargs = self._arguments(flow, body)
        with self._writer():
            value = (
                _run_async(flow, args, kwargs, body, self._inbox) if flow.is_async else flow.function(*args, **kwargs)
            )
        self._inbox.check()
        return value.result() if isinstance(value, StepFuture) else value

    def _writer(self) -> Writer:
        token = self._task.token
        return Writer(lambda: Who(token, token.number, "", token.epoch), self._environment.keep_line)

    def _arguments(self, flow: Flow[..., Any], body: Body) -> tuple[tuple[object, ...], dict[str, object]]:
        inputs = self._task.body.inputs.values
        read = self._environment.reader(lambda: [payload.object_key for payload in inputs.values()])
        try:
            values = {name: self._flow_input(flow, name, read) for name in inputs}
        except (BackendError, NotFoundError) as error:
            raise _Unfit(failure_of(error, BACKEND)) from error
        except DalsegnoError as error:
            raise _Unfit(failure_of(error, RUNTIME)) from error
        try:
            return call_arguments(flow.function, values)
        except UsageError as error:
            repeats = self._task.body.HasField("replay") or self._repeats
            raise _Unfit(_graph_changed(error) if repeats else failure_of(error, USER_CODE)) from error

    def _flow_input(self, flow: Flow[..., Any], name: str, read: Read) -> object:
        payload = self._task.body.inputs.values[name]
        value = read(payload)
        if payload.codec == "json":
            value = typed_input(flow.function, name, value)
        self._calls.provenance.record_flow_input(value, name, payload.digest, payload.canonical)
        return value

    # How it has ended.

    def _returned(self, value: object) -> Report:
        ending = self._calls.end(failed=False)
        if ending.divergence is not None:
            return self._failed(divergence_failure(ending.divergence))
        try:
            _, result = self._environment.write(value, f"the result of flow {self._task.definition.name!r}")
        except BackendError as error:
            return self._failed(failure_of(error, BACKEND))
        except DalsegnoError as error:
            return self._failed(failure_of(error, USER_CODE))
        yields = self._calls.completions.unrecorded()
        returned = BodyReturned(result=result, not_reached=ending.not_reached, yields=yields)
        return Report(token=self._task.token, returned=returned)

    def _raised(self, error: BaseException, body: Body) -> Report:
        known = body.failure_behind(error)
        if known is None:
            return self._failed(failure_of(error, USER_CODE))
        failure = Failure()
        failure.CopyFrom(known)
        return self._failed(failure)

    def _ended(self, ending: BodyEnd) -> ExecutorServiceWorkRequest | Report:
        match ending:
            case Suspension():
                return Report(token=self._task.token, suspended=BodySuspended(waits=[ending.wait]))
            case Diverged():
                return self._failed(divergence_failure(ending.divergence))
            case Refused():
                return self._failed(ending.failure)
            case HandedBack():
                return ExecutorServiceWorkRequest(returned=Returned(tokens=[self._task.token]))
        raise AssertionError(ending)

    def _failed(self, failure: Failure) -> Report:
        return Report(
            token=self._task.token,
            failed=TaskFailed(
                failure=failure,
                started_at=timestamp(self._started),
                finished_at=timestamp(time.time_ns()),
                code_digest="" if self._flow is None else self._flow.digest,
                not_reached=self._calls.end(failed=True).not_reached,
                yields=self._calls.completions.unrecorded(),
            ),
        )


class _Unfit(Exception):
    """The body cannot be called at all."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _run_async(
    flow: Flow[..., Any], args: tuple[object, ...], kwargs: dict[str, object], body: Body, inbox: Inbox
) -> object:
    with asyncio.Runner(loop_factory=BodyLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, BodyLoop)
        loop.set_exception_handler(_quiet_about_endings)

        async def main() -> object:
            task = asyncio.current_task()
            assert task is not None
            look = _looker(inbox, task)
            body.runs_on_loop(Turns(loop), look)
            inbox.wake_with(lambda: _wake(loop, look))
            look()
            try:
                return await flow.function(*args, **kwargs)
            finally:
                inbox.wake_with(None)

        return runner.run(main())


def _looker(inbox: Inbox, task: asyncio.Task[Any]) -> Callable[[], None]:
    def look() -> None:
        inbox.take_all()
        if inbox.ending is not None and not task.done():
            task.cancel()

    return look


def _wake(loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(look)
    except RuntimeError:  # the body has just ended, and its loop with it
        return


def _quiet_about_endings(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of tasks that the end of the body has ended."""
    if not isinstance(context.get("exception"), BodyEnd):
        loop.default_exception_handler(context)


def _missing(task: Task, flow: Flow[..., Any] | None) -> Failure:
    wanted = task.definition
    what = f"flow {wanted.name!r} of module {wanted.module!r}"
    found = "is another version here than was asked for" if flow is not None else "is not here any more"
    return Failure(origin=RUNTIME, message=f"{what} {found}", exception_type="dalsegno.errors:StateError")


def _graph_changed(error: UsageError) -> Failure:
    kind = execution_pb2.DivergenceKind.Value(f"DIVERGENCE_KIND_{DivergenceKind.GRAPH_CHANGED.name}")
    parameter = error.fields.get("parameter")
    return Failure(
        origin=FAILURE_ORIGIN_DIVERGENCE,
        message=f"the arguments of the flow are not those that are recorded: {error.message}",
        exception_type="dalsegno.errors:DivergenceError",
        divergence=execution_pb2.Divergence(kind=kind, inputs=[parameter] if parameter else []),
    )
