"""What a body and a step may not do, and what they are told instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dalsegno import Client, ContextError, flow, pipeline, step, wait

tries: list[Callable[[], Any]] = []
"""What the body or step tries, which runs in the process of the test."""

_clients: list[Client] = []


@step
def innocent(value: int = 1) -> int:
    return value


@flow
def other_flow() -> int:
    return innocent()


@flow
async def other_async_flow() -> int:
    return innocent()


@pipeline
def other_pipeline() -> int:
    return innocent()


@step
def trying() -> str:
    return told()


@step
async def trying_async() -> str:
    return told()


@step(timeout=30)
def trying_elsewhere() -> str:
    """With a timeout a step runs as a task of its own."""
    return told()


def told() -> str:
    try:
        tries[-1]()
    except ContextError as error:
        return str(error)
    return "nothing was refused"


@flow
def in_body() -> str:
    innocent()
    return told()


@flow
def in_step() -> str:
    return trying()


@flow
async def in_async_step() -> str:
    return await trying_async()


@flow
def in_submitted_step() -> str:
    return trying_elsewhere.submit().result()


@pipeline
def in_traced_body() -> str:
    seen.append(told())
    return trying()


seen: list[str] = []

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "flow": (lambda: other_flow(), "does not start others"),
    "async flow": (lambda: other_async_flow(), "does not start others"),
    "flow.run": (lambda: other_flow.run(), "does not start others"),
    "flow.replay": (lambda: other_flow.replay("any"), "does not start others"),
    "pipeline": (lambda: other_pipeline(), "does not start others"),
    "pipeline.replay": (lambda: other_pipeline.replay(), "does not start others"),
    "step.replay": (lambda: innocent.replay(pipeline="other_pipeline"), "replay it from a script"),
    "Client": (lambda: Client(), "pass what it would fetch as an argument"),
    "executions.get": (lambda: _clients[0].executions.get("any"), "pass what it would fetch as an argument"),
    "executions.list": (lambda: list(_clients[0].executions.list()), "pass what it would fetch as an argument"),
    "executions.start": (lambda: _clients[0].executions.start(other_flow), "does not start others"),
    "executions.replay": (lambda: _clients[0].executions.replay("any"), "pass what it would fetch as an argument"),
    "executions.logs": (lambda: list(_clients[0].executions.logs("any")), "pass what it would fetch as an argument"),
    "executions.wait": (lambda: _clients[0].executions.wait("any", 1), "pass what it would fetch as an argument"),
    "executions.import_": (
        lambda: _clients[0].executions.import_({"flow": "f", "kind": "flow", "steps": []}),
        "pass what it would fetch as an argument",
    ),
    "replay_pipeline_run": (lambda: _clients[0].replay_pipeline_run("any"), "pass what it would fetch"),
    "artifacts.upload": (lambda: _clients[0].artifacts.upload(1), "pass what it would fetch as an argument"),
}


@pytest.fixture(autouse=True)
def a_client(client: Client) -> None:
    _clients[:] = [client]


def where(place: str) -> str:
    return "inside the body" if "body" in place else "inside a step"


@pytest.mark.semantics(
    "8", "Flows, pipelines and Client calls inside a body or a step: ContextError, saying what to do"
)
@pytest.mark.parametrize("call", CALLS)
def test_an_execution_neither_starts_others_nor_asks_the_planner(call: str) -> None:
    tried, advice = CALLS[call]
    tries[:] = [tried]
    before = sum(1 for _ in _clients[0].executions.list())
    made = [(place.name, place()) for place in (in_body, in_step, in_submitted_step)]
    made.append(("in_async_step", asyncio.run(in_async_step())))
    seen.clear()
    made.append(("in_step_of_pipeline", in_traced_body().result))
    made.append(("in_traced_body", seen[0]))
    for place_name, text in made:
        assert where(place_name) in text, (place_name, text)
        assert advice in text, (place_name, text)
    assert sum(1 for _ in _clients[0].executions.list()) == before + 5


def test_waiting_and_steps_outside_a_flow_say_what_to_do() -> None:
    with pytest.raises(ContextError, match=r"wait\(\).*flow"):
        wait(name="approval")
    with pytest.raises(ContextError, match="flow"):
        innocent.submit()
    with pytest.raises(ContextError, match="flow"):
        innocent.map([1])


@step
def count(values: list[int]) -> int:
    return len(values)


@pipeline
def with_a_large_constant() -> int:
    return count(list(range(40_000)))


def test_a_traced_body_may_hold_large_values() -> None:
    """They are measured, by what the planner allows, and stored while and after the body is traced."""
    assert with_a_large_constant().result == 40_000
    assert with_a_large_constant.replay().result == 40_000
