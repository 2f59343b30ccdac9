"""Decorators: names, options, and what a call is in each place."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import pytest

from dalsegno import checkpoint, flow, pipeline, step, wait
from dalsegno.decorators import Step, StepSettings, decorated_objects
from dalsegno.durable import StepFuture, current_body, inside_step
from dalsegno.errors import ContextError, UsageError


@step
def double(x: int) -> int:
    """Twice."""
    return 2 * x


@step(name="halve", retries=2, timeout=timedelta(seconds=5), retry_delay=0.5)
def half(x: int) -> tuple[Annotated[int, "quotient"], Annotated[int, "rest"]]:
    return x // 2, x % 2


@step
def own_options(id: str, after: int = 0) -> str:
    return f"{id}{after}"


@step
async def later(x: int) -> int:
    return x


@flow
def body() -> None: ...


class RecordingBody:
    """A body context that notes the calls that are made."""

    draws_graph = False

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...], dict[str, object], str | None, tuple[object, ...]]] = []

    def call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> object:
        self.calls.append((step.name, args, dict(kwargs), id, tuple(after)))
        return "called"

    def submit(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> StepFuture[Any]:
        self.call(step, args, kwargs, id=id, after=after)
        return StepFuture(self, len(self.calls), f"{step.name}_{len(self.calls)}")  # type: ignore[arg-type]


@contextmanager
def running(context: RecordingBody) -> Iterator[RecordingBody]:
    token = current_body.set(context)  # type: ignore[arg-type]
    try:
        yield context
    finally:
        current_body.reset(token)


@contextmanager
def in_step() -> Iterator[None]:
    token = inside_step.set(True)
    try:
        yield
    finally:
        inside_step.reset(token)


def test_a_step_outside_a_flow_is_its_plain_function() -> None:
    assert double(4) == 8
    assert double.__name__ == "double"
    assert double.__doc__ == "Twice."
    assert checkpoint is step


def test_a_step_knows_its_settings() -> None:
    assert half.name == "halve"
    assert half.module == __name__
    assert half.options == StepSettings(2, 5.0, 0.5, ("quotient", "rest"))
    assert double.options == StepSettings(0, None, 1.0, ("output",))
    assert later.is_async
    assert not double.is_async


def test_a_call_in_a_body_goes_to_its_context() -> None:
    with running(RecordingBody()) as context:
        assert repr(double(1)) == repr("called")
        double(2, id="second", after="double")  # type: ignore[call-arg]
        double.with_options(id="third", after=[double])(x=3)
        assert double.submit(4).number == 4
        assert [future.invocation_id for future in double.map([5, 6])] == ["double_5", "double_6"]
    assert context.calls == [
        ("double", (1,), {}, None, ()),
        ("double", (2,), {}, "second", ("double",)),
        ("double", (), {"x": 3}, "third", ([double],)),
        ("double", (4,), {}, None, ()),
        ("double", (5,), {}, None, ()),
        ("double", (6,), {}, None, ()),
    ]


def test_options_of_a_call_that_are_parameters_too_belong_to_the_function() -> None:
    with running(RecordingBody()) as context:
        own_options(id="x", after=3)
        own_options.with_options(id="mine", after="own_options")("x")
    assert context.calls == [
        ("own_options", (), {"id": "x", "after": 3}, None, ()),
        ("own_options", ("x",), {}, "mine", ("own_options",)),
    ]


def test_map_takes_constants_and_refuses_unequal_lengths() -> None:
    with running(RecordingBody()) as context:
        half.map([1, 2], scale=3)
        with pytest.raises(UsageError, match="differ in length: 2, 1"):
            half.map([1, 2], [3])
        with pytest.raises(UsageError, match="one ID"):
            half.map([1], id="a")
        with pytest.raises(UsageError, match="needs an iterable"):
            half.map()
    assert [(args, kwargs) for _, args, kwargs, _, _ in context.calls] == [((1,), {"scale": 3}), ((2,), {"scale": 3})]


@pytest.mark.parametrize("bad", ["", " a", "a:b", "a@b", "a/b", 3])
def test_an_invocation_id_is_a_text_that_selectors_can_name(bad: Any) -> None:
    with running(RecordingBody()), pytest.raises(UsageError) as caught:
        double.with_options(id=bad)(1)
    assert caught.value.reason == "INVALID_ID"


def test_nothing_durable_works_inside_a_step() -> None:
    with running(RecordingBody()), in_step():
        with pytest.raises(ContextError, match=r"double\.function"):
            double(1)
        with pytest.raises(ContextError, match="inside a step"):
            double.submit(1)
        with pytest.raises(ContextError, match="inside a step"):
            wait(name="approve")
        with pytest.raises(ContextError, match="inside a step"):
            body.run()


def test_submitting_and_waiting_need_a_flow() -> None:
    with pytest.raises(ContextError, match="body of a flow"):
        double.submit(1)
    with pytest.raises(ContextError, match="body of a flow"):
        wait(name="approve")
    with pytest.raises(UsageError, match="positive"):
        wait(timeout=0)


def test_a_flow_cannot_start_flows() -> None:
    with running(RecordingBody()), pytest.raises(ContextError, match="does not start others"):
        body.run()


def test_an_async_step_needs_an_async_body() -> None:
    with running(RecordingBody()), pytest.raises(ContextError, match=r"later\.submit"):
        _ = later(1)


@pytest.mark.semantics("8", "Generator functions: UsageError at decoration")
def test_generators_and_what_is_no_function_are_refused_at_decoration() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    async def coroutine() -> None: ...

    for decorate in (step, flow, pipeline):
        for function in (generator, async_generator):
            with pytest.raises(UsageError, match="generator"):
                decorate(function)
        with pytest.raises(UsageError, match="needs a function"):
            decorate(print)
        with pytest.raises(UsageError, match="decorated already"):
            decorate(double)
    with pytest.raises(UsageError, match="async def"):
        pipeline(coroutine)


@pytest.mark.parametrize(
    "options",
    [
        {"name": " "},
        {"name": "a:b"},
        {"retries": -1},
        {"retries": 1.5},
        {"timeout": 0},
        {"timeout": "soon"},
        {"retry_delay": -1},
        {"timeout": float("nan")},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    def function() -> None: ...

    with pytest.raises(UsageError):
        step(**options)(function)


def test_every_decorated_object_is_known_while_it_lives() -> None:
    assert {double, half, body} <= set(decorated_objects())


def test_a_step_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(double)) is double


@pytest.mark.semantics("5", "The standard library's waiters and durable calls from other threads are ContextError.")
def test_the_standard_library_cannot_wait_for_futures() -> None:
    future: StepFuture[int] = StepFuture(None, 1, "fit")  # type: ignore[arg-type]
    with pytest.raises(ContextError, match=r"dalsegno\.as_completed"):
        concurrent.futures.wait([future])  # type: ignore[arg-type]
    with pytest.raises(ContextError, match=r"dalsegno\.as_completed"):
        asyncio.run(asyncio.wait([future]))  # type: ignore[type-var]
    assert not hasattr(future, "anything_else")


@pytest.mark.parametrize("timeout", [0, -1, True, "soon", float("inf")])
def test_a_timeout_of_an_execution_is_a_time(timeout: Any) -> None:
    for decorate in (flow, pipeline):
        with pytest.raises(UsageError, match="no duration"):
            decorate(timeout=timeout)(plain_function)
        with pytest.raises(UsageError, match="no duration"):
            decorate(plain_function).with_options(timeout=timeout)
    assert flow(timeout=timedelta(minutes=1))(plain_function).timeout == 60.0


def plain_function() -> int:
    return 1
