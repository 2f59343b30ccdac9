"""``@flow``, ``@step`` (also called ``@checkpoint``) and ``@pipeline``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

from dalsegno.decorated import Decorated, decorated_objects, module_name
from dalsegno.errors import UsageError
from dalsegno.lanes import Lane, Urgency, checked_urgency
from dalsegno.limits import Limit
from dalsegno.steps import MAX_RETRY_DELAY, RETRY_DELAY, RETRY_JITTER, Exceptions, Step, StepCall, StepSettings
from dalsegno.timeouts import checked_timeout

if TYPE_CHECKING:
    from dalsegno.client.executions import Execution
    from dalsegno.client.handles import ExecutionHandle
    from dalsegno.tracing import Graph

__all__ = [
    "Decorated",
    "Flow",
    "Pipeline",
    "Step",
    "StepCall",
    "StepSettings",
    "checkpoint",
    "decorated_objects",
    "flow",
    "module_name",
    "pipeline",
    "step",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _RunOptions(NamedTuple):
    """What `with_options` gives to a single run, as what starts it takes it."""

    name: str | None
    timeout: float | None
    urgency: Urgency


class _Runnable(Decorated[P, R]):
    """What an execution is one run of.

    Attributes:
        timeout: Seconds that an execution may take, waits included; None sets no limit.
    """

    def __init__(
        self, function: Callable[P, R], name: str | None = None, *, timeout: float | timedelta | None = None
    ) -> None:
        super().__init__(function, name)
        self.timeout = checked_timeout(f"{self.kind} {self.name!r}", timeout)

    def _timeout_or(self, timeout: float | timedelta | None) -> float | None:
        given = checked_timeout(f"the replay of {self.kind} {self.name!r}", timeout)
        return self.timeout if given is None else given

    def _urgency(self, lane: Lane | str | None, priority: int | None) -> Urgency:
        return checked_urgency(f"the replay of {self.kind} {self.name!r}", lane, priority)

    def _options(
        self, name: str | None, timeout: float | timedelta | None, lane: Lane | str | None, priority: int | None
    ) -> _RunOptions:
        what = f"{self.kind} {self.name!r}"
        return _RunOptions(name, checked_timeout(what, timeout), checked_urgency(what, lane, priority))


class Flow(_Runnable[P, R]):
    """A function whose body runs on an executor and makes durable calls as it goes."""

    kind = "flow"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the flow and return its value; for an ``async def``, a coroutine that does."""
        from dalsegno.client import starts

        if self.is_async:
            return cast("R", starts.flow_value_async(self, args, kwargs))
        return cast("R", starts.start_flow(self, args, kwargs).wait())

    @overload
    def run(self: Flow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> ExecutionHandle[T]: ...
    @overload
    def run(self, *args: P.args, **kwargs: P.kwargs) -> ExecutionHandle[R]: ...
    def run(self, *args: P.args, **kwargs: P.kwargs) -> ExecutionHandle[Any]:
        """Start an execution and return its handle.

        Raises:
            UsageError: If the arguments do not fit, or a value cannot be stored.
            BackendError: If the planner cannot be reached.
            ContextError: Inside a body or a step.
        """
        from dalsegno.client import starts

        return starts.start_flow(self, args, kwargs)

    def with_options(
        self,
        *,
        name: str | None = None,
        timeout: float | timedelta | None = None,
        lane: Lane | str | None = None,
        priority: int | None = None,
    ) -> FlowRun[P, R]:
        """Give options to a single run: ``article.with_options(timeout=60).run("kitchens")``.

        Args:
            name: The name of the run, unique in its project; one is made up where none is given.
            timeout: Seconds, or a timedelta, that it may take, instead of the flow's own.
            lane: ``"live"`` (the default), or ``"bulk"`` for what goes after all that is live.
            priority: From -100 to 100: within a lane the higher one goes first.
        """
        return FlowRun(self, self._options(name, timeout, lane, priority))

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
        debug: bool = False,
        **flow_inputs: object,
    ) -> ExecutionHandle[Any]:
        """Replay an execution of this flow with the code as it is here; see ``Client.executions.replay``.

        With `timeout`, the replay may take that long; else as long as the flow has, or as its source had. `lane` and
        `priority` are those of `with_options`.

        With ``debug=True`` the body and its steps run in the calling thread of this process, so that breakpoints
        work, and the replay has ended when this returns. Timeouts of steps are not enforced then.

        Returns:
            The handle of the new execution.
        """
        from dalsegno.client import starts
        from dalsegno.client.replay_request import ReplayRequest

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
            timeout=self._timeout_or(timeout),
            urgency=self._urgency(lane, priority),
        )
        return starts.replay_flow(self, exec_id, request, debug=debug)


class FlowRun(Generic[P, R]):
    """A flow with the options of one run."""

    __slots__ = ("_flow", "_options")

    def __init__(self, flow: Flow[P, R], options: _RunOptions) -> None:
        self._flow = flow
        self._options = options

    def run(self, *args: P.args, **kwargs: P.kwargs) -> ExecutionHandle[R]:
        """Start an execution and return its handle; see `Flow.run`."""
        from dalsegno.client import starts

        return starts.start_flow(self._flow, args, kwargs, **self._options._asdict())


class Pipeline(_Runnable[P, R]):
    """A function whose body is traced once into a fixed graph, which then runs."""

    kind = "pipeline"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Execution:
        """Trace, run, wait, and return the execution.

        Raises:
            UserCodeError: If a step failed; ``exec_id`` says in which execution.
        """
        from dalsegno.client import starts

        return starts.run_pipeline(self, args, kwargs)

    def with_options(
        self,
        *,
        name: str | None = None,
        timeout: float | timedelta | None = None,
        lane: Lane | str | None = None,
        priority: int | None = None,
    ) -> PipelineRun[P, R]:
        """Give options to a single run: ``training.with_options(timeout=3600)(rate=0.1)``.

        Args:
            name: The name of the run, unique in its project; one is made up where none is given.
            timeout: Seconds, or a timedelta, that it may take, instead of the pipeline's own.
            lane: ``"live"``, or ``"bulk"`` for what goes after all that is live; where none is given live, or
                bulk for a graph of thousands of steps.
            priority: From -100 to 100: within a lane the higher one goes first.
        """
        return PipelineRun(self, self._options(name, timeout, lane, priority))

    def trace(self, *args: P.args, **kwargs: P.kwargs) -> Graph:
        """Return the graph that a run with these arguments would have; nothing runs."""
        from dalsegno.tracing import trace

        return trace(self, args, kwargs)

    def replay(
        self,
        *,
        pipeline_run: object = None,
        pipeline: object = None,
        skip: Sequence[str] | None = None,
        skip_successful_steps: bool = False,
        input_overrides: Mapping[str, object] | None = None,
        step_input_overrides: Mapping[str, Mapping[str, object]] | None = None,
        rerun_changed_code: bool = False,
        expect_plan: str | None = None,
        timeout: float | timedelta | None = None,
        lane: Lane | str | None = None,
        priority: int | None = None,
        debug: bool = False,
    ) -> Execution:
        """Replay a run with the code as it is here, wait, and return the new execution.

        Args:
            pipeline_run: The run: its name, its ID or a unique prefix of it; the latest finished run where
                none is given.
            pipeline: The pipeline whose latest finished run is meant; this one where none is given.
            skip: Invocation IDs, or ``all:NAME``, whose outputs are reused; everything else re-executes.
            skip_successful_steps: Reuse whatever succeeded and is not touched by an override.
            input_overrides: Parameters of the pipeline that are replaced.
            step_input_overrides: Inputs of single invocations that are replaced.
            rerun_changed_code: Re-execute steps whose code has changed, also among what would be reused.
            expect_plan: The digest of the plan that was agreed to.
            timeout: Seconds, or a timedelta, that the replay may take; else as long as the pipeline has, or as its
                source had.
            lane: As with `with_options`.
            priority: As with `with_options`.
            debug: Run the steps in the calling thread of this process, so that breakpoints work. Timeouts of steps
                are not enforced then.
        """
        from dalsegno.client import pipeline_replays
        from dalsegno.client.replay_request import ReplayRequest

        request = ReplayRequest(
            skip=skip,
            skip_successful_steps=skip_successful_steps,
            step_input_overrides=step_input_overrides,
            rerun_changed_code=rerun_changed_code,
            expect_plan=expect_plan,
            inputs=input_overrides,
            everything=skip is None and not skip_successful_steps,
            timeout=self._timeout_or(timeout),
            urgency=self._urgency(lane, priority),
        )
        return pipeline_replays.replay_pipeline(self, pipeline_run, pipeline, request, debug=debug)


class PipelineRun(Generic[P, R]):
    """A pipeline with the options of one run."""

    __slots__ = ("_options", "_pipeline")

    def __init__(self, pipeline: Pipeline[P, R], options: _RunOptions) -> None:
        self._pipeline = pipeline
        self._options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Execution:
        """Trace, run, wait, and return the execution; see `Pipeline`."""
        from dalsegno.client import starts

        return starts.run_pipeline(self._pipeline, args, kwargs, **self._options._asdict())


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
