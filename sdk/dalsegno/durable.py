"""Durable calls: what a step call, a wait or a future does inside the body of a flow.

The body's side of the recording is a `BodyContext`. An executor provides the one that runs flows,
`dalsegno.tracing` the one that draws a pipeline's graph. This module knows neither; it holds the place where
they meet.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, cast

from dalsegno.errors import ContextError, UsageError

if TYPE_CHECKING:
    from dalsegno.decorators import Step

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class BodyContext(Protocol):
    """Makes and answers the durable calls of one body.

    Attributes:
        draws_graph: Whether calls become nodes of a graph, and nothing runs.
    """

    @property
    def draws_graph(self) -> bool: ...

    def call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> object:
        """Make a call and return its value. `after` is as it was written; `Provenance.upstream_of` reads it."""
        ...

    def submit(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> StepFuture[Any]:
        """Make a call that runs beside the body."""
        ...

    def async_call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> Coroutine[Any, Any, object]:
        """Make a call of an ``async def`` step: numbered now, run when it is awaited."""
        ...

    def wait(
        self,
        name: str | None,
        schema: object,
        question: str | None,
        timeout: float | None,
        metadata: Mapping[str, object] | None,
    ) -> object:
        """Ask, and return the answer. `timeout` is in seconds."""
        ...

    def as_completed(self, futures: Sequence[StepFuture[Any]]) -> Iterator[StepFuture[Any]]:
        """Yield futures, each once: in the recorded order, and where there is none in that in which their calls end."""
        ...

    def future_result(self, number: int, timeout: float | None) -> object:
        """Return the value of a submitted call, or raise what it raised."""
        ...

    def future_exception(self, number: int, timeout: float | None) -> BaseException | None:
        """Return what a submitted call raised."""
        ...

    def future_done(self, number: int) -> bool:
        """Return whether a submitted call has ended."""
        ...

    def future_await(self, number: int) -> Coroutine[Any, Any, object]:
        """Return a coroutine for the value of a submitted call."""
        ...


current_body: ContextVar[BodyContext | None] = ContextVar("dalsegno_current_body", default=None)
"""The body that runs in this context; ``None`` outside one."""

inside_step: ContextVar[bool] = ContextVar("dalsegno_inside_step", default=False)
"""Whether the code of a step runs in this context. It comes before `current_body`, which direct calls leave set."""

_imported_for_code: ContextVar[bool] = ContextVar("dalsegno_imported_for_code", default=False)


@contextmanager
def importing_code() -> Iterator[None]:
    """While a worker or a command imports a module for the flows in it: what the module starts then is refused."""
    token = _imported_for_code.set(True)
    try:
        yield
    finally:
        _imported_for_code.reset(token)


class StepFuture(Generic[R_co]):
    """The value that a submitted call will have.

    Attributes:
        number: The number of the call in its execution.
        invocation_id: Its readable ID.
    """

    __slots__ = ("_context", "invocation_id", "number")

    def __init__(self, context: BodyContext, number: int, invocation_id: str) -> None:
        self._context = context
        self.number = number
        self.invocation_id = invocation_id

    def result(self, timeout: float | None = None) -> R_co:
        """Return the value, when it is there.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: If the call has not ended by then.
            Exception: What the step raised in its last attempt.
        """
        return cast("R_co", self._context.future_result(self.number, timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the step raised in its last attempt; ``None`` where it completed.

        Raises:
            TimeoutError: If the call has not ended after `timeout` seconds.
        """
        return self._context.future_exception(self.number, timeout)

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._context.future_done(self.number)

    def __await__(self) -> Generator[Any, None, R_co]:
        return cast("Generator[Any, None, R_co]", self._context.future_await(self.number).__await__())

    def __getattr__(self, name: str) -> NoReturn:
        # What the waiters of `concurrent.futures` and `asyncio` ask of a future of theirs.
        if name in ("_condition", "add_done_callback"):
            raise ContextError(
                f"{self!r} cannot be waited for with concurrent.futures or asyncio.wait, whose order is not recorded; "
                "use dalsegno.as_completed, result(), or await",
                reason="FOREIGN_WAITER",
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<StepFuture {self.invocation_id}>"


def active_body(action: str) -> BodyContext:
    """Return the body that runs here.

    Raises:
        ContextError: Outside a body, and inside a step; `action` says what was tried.
    """
    if inside_step.get():
        raise ContextError(
            f"{action} inside a step is not recorded, and cannot be; call it in the body of the flow and "
            "pass the result to the step",
            reason="INSIDE_STEP",
        )
    body = current_body.get()
    if body is None:
        raise ContextError(
            f"{action} works in the body of a flow only: in a function decorated with @flow, while it runs "
            "on an executor",
            reason="OUTSIDE_FLOW",
        )
    return body


def refuse_inside(what: str, advice: str) -> None:
    """Refuse what cannot work inside a body or a step.

    Raises:
        ContextError: Inside either of them.
    """
    if inside_step.get():
        raise ContextError(f"{what} inside a step: {advice}", reason="INSIDE_STEP")
    if current_body.get() is not None:
        raise ContextError(f"{what} inside the body of a flow or pipeline: {advice}", reason="INSIDE_BODY")


def refuse_at_import(what: str) -> None:
    """Refuse what would happen again in every process that imports the user's code.

    Raises:
        ContextError: While a worker or a command imports it.
    """
    if _imported_for_code.get():
        raise ContextError(
            f"{what} while its module is imported for the code in it: every worker and command would start it again; "
            'put it under if __name__ == "__main__":',
            reason="AT_IMPORT",
        )


def wait(
    *,
    name: str | None = None,
    schema: object = None,
    question: str | None = None,
    timeout: float | timedelta | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Any:
    """Suspend the flow until somebody answers; nothing is held meanwhile, for as long as it takes.

    Args:
        name: What the answer is addressed to; ``wait`` where none is given. A name that is asked again gets
            ``_2``.
        schema: What an answer must be: a type, a Pydantic model or a JSON Schema. Without one it is a gate:
            ``True`` goes on, ``False`` aborts.
        question: What is asked, for people.
        timeout: Seconds or a timedelta until the call raises; None never does.
        metadata: Anything for those who show the question; encoded as JSON.

    Returns:
        The answer; an instance of the model where `schema` is one.

    Raises:
        WaitTimeoutError: If the deadline passes.
        ContextError: Outside a flow, or inside a step.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is not None and not seconds > 0:
        raise UsageError(
            f"wait(timeout={timeout!r}): give a positive number of seconds, or None", reason="WAIT_TIMEOUT"
        )
    return active_body("wait()").wait(name, schema, question, seconds, metadata)


def as_completed(futures: Iterable[StepFuture[R]]) -> Iterator[StepFuture[R]]:
    """Yield futures as their calls end, each once, in an order that is recorded.

    The body is given the same order when it is recovered, when it goes on after a wait, and in every replay, where a
    future is waited for while others have ended if it came before them in the recording.

    Args:
        futures: What ``.submit()`` and ``.map()`` returned.

    Raises:
        ContextError: Outside a flow, or inside a step.
        UsageError: If one of them is no future of a step.
    """
    body = active_body("as_completed()")
    given: list[Any] = list(futures)
    strange = next((one for one in given if not isinstance(one, StepFuture)), None)
    if strange is not None:
        raise UsageError(
            f"as_completed() got {strange!r}; it takes what .submit() and .map() return",
            reason="NOT_A_FUTURE",
        )
    return body.as_completed(given)
