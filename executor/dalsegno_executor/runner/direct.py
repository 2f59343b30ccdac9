"""Runs a step's function where the body runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from dalsegno.arguments import call_arguments
from dalsegno.durable import inside_step
from dalsegno.steps import Step
from dalsegno.v1.execution_pb2 import Failure
from dalsegno.v1.value_pb2 import Outputs
from dalsegno.values import decode, encode
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.log_capture import Writer
from dalsegno_executor.runner.outputs import StoredOutputs
from dalsegno_executor.runner.running import RunningCall
from dalsegno_executor.runner.steps import StepFailed, call_function, store_result

_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes})


class DirectRun(NamedTuple):
    """What came of it: outputs, or a failure with the names of what was raised. Times are in nanoseconds."""

    started: int
    finished: int
    outputs: StoredOutputs | None = None
    failure: Failure | None = None
    raised: tuple[str, ...] = ()


def run_direct(
    step: Step[..., Any],
    arguments: Mapping[str, object],
    environment: Environment,
    started: int,
    writer: Writer,
    call: RunningCall,
    message: Outputs,
) -> DirectRun:
    """Call the function of a step, store what it returns, and name it in a message."""
    try:
        with call:
            value = call_function(step, _copies(arguments), writer, call)
        return DirectRun(started, time.time_ns(), outputs=store_result(step, value, environment, message))
    except StepFailed as failed:
        return DirectRun(started, time.time_ns(), failure=failed.failure, raised=failed.raised)


async def run_direct_async(
    step: Step[..., Any],
    arguments: Mapping[str, object],
    environment: Environment,
    started: int,
    writer: Writer,
    call: RunningCall,
    message: Outputs,
) -> DirectRun:
    """Await the function of a step on the body's loop, store what it returns, and name it in a message.

    It gets a task of its own, so that nothing of the body's context is changed while it runs.
    """
    try:
        value = await asyncio.get_running_loop().create_task(_call(step, _copies(arguments), writer, call))
        return DirectRun(started, time.time_ns(), outputs=store_result(step, value, environment, message))
    except StepFailed as failed:
        return DirectRun(started, time.time_ns(), failure=failed.failure, raised=failed.raised)


async def _call(step: Step[..., Any], arguments: Mapping[str, object], writer: Writer, call: RunningCall) -> object:
    inside_step.set(True)
    writer.begin()
    try:
        args, kwargs = call_arguments(step.function, arguments)
        with call:
            return await call.run_async(step.function(*args, **kwargs))
    except asyncio.CancelledError:
        # The body has given the call up. It has no outcome, and runs again when the body is recovered.
        raise
    except BaseException as error:
        raise StepFailed.by_code(error) from error
    finally:
        writer.end()


def _copies(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return what the step would get on another executor, so that it cannot change the body's own objects."""
    return {name: value if type(value) in _IMMUTABLE else decode(encode(value)) for name, value in arguments.items()}
