"""Flows and pipelines: what an execution is one run of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

from dalsegno.decorated import Decorated
from dalsegno.lanes import Lane, Urgency, checked_urgency
from dalsegno.timeouts import checked_timeout

if TYPE_CHECKING:
    from dalsegno.client.executions import Execution
    from dalsegno.client.handles import ExecutionHandle
    from dalsegno.tracing import Graph

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RunOptions(NamedTuple):
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
    ) -> RunOptions:
        what = f"{self.kind} {self.name!r}"
        return RunOptions(name, checked_timeout(what, timeout), checked_urgency(what, lane, priority))


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
    """A flow with the options of one run.

    Attributes:
        flow: The flow.
        options: The options.
    """

    __slots__ = ("flow", "options")

    def __init__(self, flow: Flow[P, R], options: RunOptions) -> None:
        self.flow = flow
        self.options = options

    def run(self, *args: P.args, **kwargs: P.kwargs) -> ExecutionHandle[R]:
        """Start an execution and return its handle; see `Flow.run`."""
        from dalsegno.client import starts

        return starts.start_flow(self.flow, args, kwargs, **self.options._asdict())


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
    """A pipeline with the options of one run.

    Attributes:
        pipeline: The pipeline.
        options: The options.
    """

    __slots__ = ("options", "pipeline")

    def __init__(self, pipeline: Pipeline[P, R], options: RunOptions) -> None:
        self.pipeline = pipeline
        self.options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Execution:
        """Trace, run, wait, and return the execution; see `Pipeline`."""
        from dalsegno.client import starts

        return starts.run_pipeline(self.pipeline, args, kwargs, **self.options._asdict())
