"""``@flow``, ``@step`` (also called ``@checkpoint``) and ``@pipeline``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, overload

from dalsegno.decorated import Decorated, decorated_objects
from dalsegno.errors import UsageError
from dalsegno.limits import Limit
from dalsegno.runnables import Flow, Pipeline
from dalsegno.steps import MAX_RETRY_DELAY, RETRY_DELAY, RETRY_JITTER, Exceptions, Step, StepSettings

__all__ = [
    "Decorated",
    "Flow",
    "Pipeline",
    "Step",
    "StepSettings",
    "checkpoint",
    "decorated_objects",
    "flow",
    "pipeline",
    "step",
]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: float | timedelta | None = None,
    retry_delay: float | timedelta = RETRY_DELAY,
    max_retry_delay: float | timedelta = MAX_RETRY_DELAY,
    retry_jitter: float = RETRY_JITTER,
    retry_on: Exceptions = (),
    no_retry_on: Exceptions = (),
    concurrency: int | Limit | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: float | timedelta | None = None,
    retry_delay: float | timedelta = RETRY_DELAY,
    max_retry_delay: float | timedelta = MAX_RETRY_DELAY,
    retry_jitter: float = RETRY_JITTER,
    retry_on: Exceptions = (),
    no_retry_on: Exceptions = (),
    concurrency: int | Limit | None = None,
) -> Any:
    """Make a function a step: one durable unit of user code. ``checkpoint`` is the same decorator.

    Several outputs are declared by the return annotation: ``tuple[Annotated[X, "a"], Annotated[Y, "b"]]``.

    Args:
        function: The function, where the decorator is used without parentheses.
        name: Its name in executions; the function's own where none is given.
        retries: How often a failed attempt is tried again.
        timeout: Seconds, or a timedelta, that one attempt may take.
        retry_delay: Seconds, or a timedelta, before the first retry; doubled for each further one.
        max_retry_delay: Seconds, or a timedelta, that a retry waits at most.
        retry_jitter: By which part of itself each delay is longer or shorter, at random, so that what failed together
            is not tried again together; 0 for none.
        retry_on: The exceptions, a class or a tuple of classes, after which an attempt is tried again; all of them
            where none are given. `TimeoutError` is also what exceeding the timeout is. It is about what the step's
            code raises: an attempt whose process died is tried again in any case.
        no_retry_on: Exceptions after which it is not, though `retry_on` has them.
        concurrency: How many of its calls run at once, over all executors and executions of the project: a number, or a
            `Limit` that it shares with other steps. Further ones wait, and hold nothing meanwhile.

    Raises:
        UsageError: If the function is a generator, or an option makes no sense.
    """

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        return Step(
            function,
            name,
            retries=retries,
            timeout=timeout,
            retry_delay=retry_delay,
            max_retry_delay=max_retry_delay,
            retry_jitter=retry_jitter,
            retry_on=retry_on,
            no_retry_on=no_retry_on,
            concurrency=concurrency,
        )

    return decorate if function is None else decorate(function)


checkpoint = step


@overload
def flow(function: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *, name: str | None = None, timeout: float | timedelta | None = None
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | timedelta | None = None,
) -> Any:
    """Make a function a flow: its body runs on an executor, and the steps that it calls are recorded.

    Args:
        function: The function, where the decorator is used without parentheses.
        name: Its name in executions; the function's own where none is given.
        timeout: Seconds, or a timedelta, that an execution may take, waits included. One that takes longer ends as
            failed, with the reason ``EXECUTION_TIMEOUT``, and what runs of it is stopped.

    Raises:
        UsageError: If the function is a generator.
    """

    def decorate(function: Callable[..., Any]) -> Flow[..., Any]:
        return Flow(function, name, timeout=timeout)

    return decorate if function is None else decorate(function)


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(
    *, name: str | None = None, timeout: float | timedelta | None = None
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | timedelta | None = None,
) -> Any:
    """Make a function a pipeline: its body is traced once into a fixed graph before anything runs.

    Args:
        function: The function, where the decorator is used without parentheses.
        name: Its name in executions; the function's own where none is given.
        timeout: Seconds, or a timedelta, that an execution may take, waits included. One that takes longer ends as
            failed, with the reason ``EXECUTION_TIMEOUT``, and what runs of it is stopped.

    Raises:
        UsageError: If the function is a generator, or an ``async def``.
    """

    def decorate(function: Callable[..., Any]) -> Pipeline[..., Any]:
        if inspect.iscoroutinefunction(function):
            raise UsageError(
                f"pipeline {function.__name__!r} is an async def; its body only draws the graph, so write a "
                "plain def (its steps may be async)",
                reason="ASYNC_PIPELINE",
            )
        return Pipeline(function, name, timeout=timeout)

    return decorate if function is None else decorate(function)
