"""Steps, and the options of their calls."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from dalsegno.decorated import FORBIDDEN_IN_NAMES, Decorated
from dalsegno.durable import BodyContext, StepFuture, active_body, current_body, inside_step
from dalsegno.errors import ContextError, UsageError
from dalsegno.limits import Concurrency, Limit, checked_concurrency
from dalsegno.values.classes import exception_name

if TYPE_CHECKING:
    from uuid import UUID

    from dalsegno.client.executions import Execution

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Exceptions: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


RETRY_DELAY = 1.0
MAX_RETRY_DELAY = 3600.0
RETRY_JITTER = 0.25
"""What holds where a step says nothing."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How a step is run.

    Attributes:
        retries: How often a failed attempt is tried again.
        timeout: Seconds that one attempt may take; None sets no limit.
        retry_delay: Seconds before the first retry; doubled for each further one.
        outputs: The names of the outputs, in order.
        max_retry_delay: Seconds that a retry waits at most.
        retry_jitter: By which part of itself a delay is longer or shorter, at random.
        retry_on: Names of the exceptions after which an attempt is tried again; empty for all.
        no_retry_on: Names of the exceptions after which it is not.
        concurrency: How many of its calls run at once, over all executors; None sets no limit.
    """

    retries: int
    timeout: float | None
    retry_delay: float
    outputs: tuple[str, ...]
    max_retry_delay: float = MAX_RETRY_DELAY
    retry_jitter: float = RETRY_JITTER
    retry_on: tuple[str, ...] = ()
    no_retry_on: tuple[str, ...] = ()
    concurrency: Concurrency | None = None

    @property
    def runs_in_body(self) -> bool:
        """Whether a direct call may run within the body: neither is its end enforced, nor is it counted with others."""
        return self.timeout is None and self.concurrency is None


class Step(Decorated[P, R]):
    """One durable unit of user code.

    Called in the body of a flow, it runs once and its outputs are recorded; a replay may reuse them. Called
    in the body of a pipeline, it becomes a node of the graph. Called anywhere else, it is its plain function.

    Two options belong to a single call, ``id=`` (the invocation ID, instead of the step's name with a number)
    and ``after=`` (one call or a list of calls that it comes after, though it takes nothing from them). They
    can be given with the arguments, ``train(data, id="first")``, except where the function has a parameter of
    that
    name: then they are the function's. `with_options` gives them in every case, and is what type checkers
        understand.
    """

    kind = "step"
    follows_steps = True

    def __init__(
        self,
        function: Callable[P, R],
        name: str | None = None,
        *,
        retries: int = 0,
        timeout: float | timedelta | None = None,
        retry_delay: float | timedelta = RETRY_DELAY,
        max_retry_delay: float | timedelta = MAX_RETRY_DELAY,
        retry_jitter: float = RETRY_JITTER,
        retry_on: Exceptions = (),
        no_retry_on: Exceptions = (),
        concurrency: int | Limit | None = None,
    ) -> None:
        super().__init__(function, name)
        self._retries = _checked_retries(self.name, retries)
        self._timeout = None if timeout is None else _seconds(self.name, "timeout", timeout, least=math.ulp(0.0))
        self._retry_delay = _seconds(self.name, "retry_delay", retry_delay, least=0.0)
        self._max_retry_delay = _seconds(self.name, "max_retry_delay", max_retry_delay, least=0.0)
        self._retry_jitter = _checked_jitter(self.name, retry_jitter)
        self._retry_on = _exception_names(self.name, "retry_on", retry_on)
        self._no_retry_on = _exception_names(self.name, "no_retry_on", no_retry_on)
        self._concurrency = checked_concurrency(self.name, f"{self.module}:{self.name}", concurrency)
        parameters = inspect.signature(function).parameters
        self._call_options = frozenset({"id", "after"} - set(parameters))

    @functools.cached_property
    def options(self) -> StepSettings:
        """How it is run; the outputs come from the return annotation."""
        from dalsegno.schemas import output_names

        return StepSettings(
            self._retries,
            self._timeout,
            self._retry_delay,
            tuple(output_names(self.function)),
            self._max_retry_delay,
            self._retry_jitter,
            self._retry_on,
            self._no_retry_on,
            self._concurrency,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if inside_step.get():
            raise ContextError(
                f"step {self.name!r} is called inside a step, where a call cannot be recorded; call "
                f"{self.__name__}.function(…) for its plain function, or move the call to the body of the "
                "flow",
                reason="STEP_INSIDE_STEP",
                fields={"step": self.name},
            )
        body = current_body.get()
        if body is None:
            return self.function(*args, **kwargs)
        given_id, after, kwargs_left = self._split_options(kwargs)
        return self._call(body, args, kwargs_left, given_id, after)

    @overload
    def submit(self: Step[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> StepFuture[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[Any]:
        """Make a call that runs beside the body, on any executor, and return its future.

        Raises:
            ContextError: Outside a flow.
        """
        given_id, after, kwargs_left = self._split_options(kwargs)
        return self._submit(args, kwargs_left, given_id, after)

    def map(self, *iterables: Iterable[Any], **constants: Any) -> list[StepFuture[Any]]:
        """Submit one call for each element, as the built-in `map` does, and return the futures in order.

        Args:
            *iterables: The positional arguments: the n-th call takes the n-th element of each.
            **constants: Keyword arguments that every call takes; ``after=`` among them.

        Raises:
            UsageError: If the iterables differ in length, or ``id=`` is given.
            ContextError: Outside a flow.
        """
        given_id, after, constants_left = self._split_options(constants)
        if given_id is not None:
            raise UsageError(f"{self.name}.map(id={given_id!r}): one ID cannot name several calls", reason="ID_IN_MAP")
        rows = _rows(self.name, iterables)
        return [self._submit(row, constants_left, None, after) for row in rows]

    def with_options(self, *, id: str | None = None, after: object = None) -> StepCall[P, R]:
        """Give options to a single call: ``train.with_options(id="first", after=clean)(data)``.

        Args:
            id: The invocation ID; it must be unique in the execution.
            after: What the call comes after: outputs, futures, invocation IDs or steps (their latest call);
                one of them, or a list.
        """
        return StepCall(self, _checked_id(self.name, id), _entries(after))

    def replay(
        self,
        *,
        step_run_id: str | UUID | None = None,
        pipeline_run: object = None,
        pipeline: object = None,
        invocation_id: str | None = None,
        input_overrides: Mapping[str, object] | None = None,
        debug: bool = False,
    ) -> Execution:
        """Run one call of this step again, alone, with its recorded inputs and the code as it is here; wait for it.

        Args:
            step_run_id: The call: its UUID, a unique prefix of it, or with the run any unique part at either end.
            pipeline_run: The run of the call: its name, its ID or a unique prefix of it.
            pipeline: The pipeline whose latest finished run is meant.
            invocation_id: The call in that run; may be left out where the run has one call of this step.
            input_overrides: Inputs that are replaced.
            debug: Run in the calling thread of this process, so that breakpoints work; a timeout is not enforced.

        Returns:
            An execution of its own, with the link to its source.

        Raises:
            StateError: If several calls may be meant; they are listed.
            UsageError: If the call is one of another step, or what was given disagrees.
        """
        from dalsegno.client.step_replays import replay_step

        return replay_step(
            self,
            step_run_id=step_run_id,
            pipeline_run=pipeline_run,
            pipeline=pipeline,
            invocation_id=invocation_id,
            input_overrides=input_overrides,
            debug=debug,
        )

    def _split_options(self, kwargs: Mapping[str, Any]) -> tuple[str | None, Sequence[object], dict[str, Any]]:
        given = self._call_options.intersection(kwargs)
        if not given:
            return None, (), dict(kwargs)
        left = {name: value for name, value in kwargs.items() if name not in given}
        given_id = kwargs["id"] if "id" in given else None
        after = kwargs.get("after") if "after" in given else None
        return _checked_id(self.name, given_id), _entries(after), left

    def _call(
        self,
        body: BodyContext,
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        id: str | None,
        after: Sequence[object],
    ) -> R:
        if not self.is_async or body.draws_graph:
            return cast("R", body.call(self, args, kwargs, id=id, after=after))
        if not _loop_runs_here():
            raise ContextError(
                f"step {self.name!r} is an async def, and this body is not: make the flow an async def and "
                f"await the call, or use {self.__name__}.submit(…).result()",
                reason="ASYNC_STEP_IN_SYNC_BODY",
                fields={"step": self.name},
            )
        return cast("R", body.async_call(self, args, kwargs, id=id, after=after))

    def _submit(
        self, args: tuple[object, ...], kwargs: dict[str, Any], id: str | None, after: Sequence[object]
    ) -> StepFuture[Any]:
        return active_body(f"{self.name}.submit()").submit(self, args, kwargs, id=id, after=after)


class StepCall(Generic[P, R]):
    """A step with the options of one call."""

    __slots__ = ("_after", "_id", "_step")

    def __init__(self, step: Step[P, R], id: str | None, after: Sequence[object]) -> None:
        self._step = step
        self._id = id
        self._after = after

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        body = active_body(f"{self._step.name}()")
        return self._step._call(body, args, dict(kwargs), self._id, self._after)

    @overload
    def submit(self: StepCall[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> StepFuture[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[Any]:
        """Make a call that runs beside the body; see `Step.submit`."""
        return self._step._submit(args, dict(kwargs), self._id, self._after)


def _checked_id(step: str, id: object) -> str | None:
    if id is None or (isinstance(id, str) and id.strip() == id != "" and not FORBIDDEN_IN_NAMES.intersection(id)):
        return id
    raise UsageError(
        f"{step}(id={id!r}): an invocation ID is a text that is not blank, without ':', '@' and '/'",
        reason="INVALID_ID",
    )


def _checked_retries(step: str, retries: object) -> int:
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise UsageError(f"step {step!r}: retries={retries!r} is not a whole number from 0", reason="INVALID_OPTION")
    return retries


def _checked_jitter(step: str, jitter: object) -> float:
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
        raise UsageError(
            f"step {step!r}: retry_jitter={jitter!r} is no part of a delay; give a number from 0 to 1",
            reason="INVALID_OPTION",
        )
    return float(jitter)


def _exception_names(step: str, option: str, given: object) -> tuple[str, ...]:
    classes = given if isinstance(given, tuple | list) else (given,)
    wrong = [one for one in classes if not (isinstance(one, type) and issubclass(one, BaseException))]
    if wrong:
        raise UsageError(
            f"step {step!r}: {option}={wrong[0]!r} is no class of exceptions; give one, or a tuple of them",
            reason="INVALID_OPTION",
        )
    return tuple(exception_name(one) for one in classes)


def _seconds(step: str, option: str, value: object, *, least: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds < math.inf:
        raise UsageError(
            f"step {step!r}: {option}={value!r} is no duration; give seconds or a timedelta",
            reason="INVALID_OPTION",
        )
    return float(seconds)


def _entries(after: object) -> Sequence[object]:
    # A list may itself be an output, so that who knows the outputs takes it apart.
    return () if after is None else (after,)


def _loop_runs_here() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _rows(step: str, iterables: tuple[Iterable[Any], ...]) -> list[tuple[Any, ...]]:
    if not iterables:
        raise UsageError(f"{step}.map() needs an iterable to map over", reason="MAP_WITHOUT_ITERABLE")
    columns = [list(iterable) for iterable in iterables]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        shown = ", ".join(str(len(column)) for column in columns)
        raise UsageError(f"{step}.map(): the iterables differ in length: {shown}", reason="MAP_LENGTHS")
    return list(zip(*columns, strict=True))
