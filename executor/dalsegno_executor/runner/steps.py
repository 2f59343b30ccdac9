"""Runs step tasks: resolve the inputs, call the function, store the outputs, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dalsegno.arguments import call_arguments
from dalsegno.durable import inside_step
from dalsegno.errors import BackendError, DalsegnoError, NotFoundError
from dalsegno.steps import Step
from dalsegno.v1.execution_pb2 import Failure
from dalsegno.v1.executor_service_pb2 import Report, Task
from dalsegno.v1.value_pb2 import Outputs
from dalsegno_executor.attempts import failed_step, names_of, set_time, timestamp
from dalsegno_executor.runner.coroutines import thread_loop
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.failures import BACKEND, RUNTIME, USER_CODE, failure_of
from dalsegno_executor.runner.log_capture import Who, Writer
from dalsegno_executor.runner.outputs import StoredOutputs, store_outputs
from dalsegno_executor.runner.resolve import Resolver
from dalsegno_executor.runner.running import RunningCall


class StepFailed(Exception):
    """An attempt has failed; it has been decided where.

    Attributes:
        raised: Names of what the step's code has raised; empty where it is not to blame.
    """

    def __init__(self, failure: Failure, raised: tuple[str, ...] = ()) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.raised = raised

    @classmethod
    def by_code(cls, error: BaseException) -> StepFailed:
        """Return the failure for what the step's code has raised."""
        return cls(failure_of(error, USER_CODE), names_of(type(error)))


def run_step(task: Task, step: Step[..., Any] | None, environment: Environment) -> Report:
    """Run the attempt that a task asks for, and return what is reported of it."""
    started = time.time_ns()
    digest = ""
    # Filled in where it is: a message that is put into another one is serialized and parsed again.
    report = Report()
    completed = report.completed
    try:
        step = _the_step(task, step)
        digest = step.digest
        arguments = _read_arguments(task, environment)
        with environment.running.call(task.token, task.token.number) as call:
            value = call_function(step, arguments, _writer(task, environment), call)
        store_result(step, value, environment, completed.outputs)
    except StepFailed as failed:
        ended = timestamp(time.time_ns())
        return failed_step(task, failed.failure, timestamp(started), ended, digest, failed.raised)
    report.token.MergeFrom(task.token)
    set_time(completed.started_at, started)
    set_time(completed.finished_at, time.time_ns())
    completed.code_digest = digest
    return report


def call_function(step: Step[..., Any], arguments: Mapping[str, object], writer: Writer, call: RunningCall) -> object:
    """Call a step's function, to its end if it is an ``async def``.

    Raises:
        StepFailed: If it raised, or does not take these arguments.
    """
    token = inside_step.set(True)
    try:
        args, kwargs = call_arguments(step.function, arguments)
        with writer:
            if step.is_async:
                return thread_loop.run(call.run_async(step.function(*args, **kwargs)))
            return call.run(lambda: step.function(*args, **kwargs))
    except BaseException as error:
        # SystemExit and KeyboardInterrupt too: user code ends itself, never the runner.
        raise StepFailed.by_code(error) from error
    finally:
        inside_step.reset(token)


def _writer(task: Task, environment: Environment) -> Writer:
    def who() -> Who:
        attempt = task.step.attempts_before + max(1, task.step.attempt)
        return Who(task.token, task.token.number, task.step.invocation_id, attempt)

    return Writer(who, environment.keep_line)


def _the_step(task: Task, step: Step[..., Any] | None) -> Step[..., Any]:
    wanted = task.definition
    if step is not None and wanted.pinned_digest in ("", step.digest):
        return step
    what = f"step {wanted.name!r} of module {wanted.module!r}"
    if step is None:
        message = f"this executor has no {what}; it announced code that it cannot find any more"
    else:
        message = (
            f"{what} is another version here ({step.digest[:12]}) than was asked for ({wanted.pinned_digest[:12]})"
        )
    raise StepFailed(Failure(origin=RUNTIME, message=message, exception_type="dalsegno.errors:StateError"))


def _read_arguments(task: Task, environment: Environment) -> dict[str, object]:
    work = task.step
    if not work.inputs.bindings:
        return {}
    try:
        return Resolver(environment, work.upstream, work.flow_inputs).arguments(work.inputs)
    except (BackendError, NotFoundError) as error:
        raise StepFailed(failure_of(error, BACKEND)) from error
    except DalsegnoError as error:
        raise StepFailed(failure_of(error, RUNTIME)) from error


def store_result(step: Step[..., Any], value: object, environment: Environment, message: Outputs) -> StoredOutputs:
    """Store what a step has returned, and name it in a message, which is empty.

    Raises:
        StepFailed: It cannot be stored.
    """
    try:
        return store_outputs(step, value, environment, message)
    except BackendError as error:
        raise StepFailed(failure_of(error, BACKEND)) from error
    except DalsegnoError as error:
        raise StepFailed.by_code(error) from error
