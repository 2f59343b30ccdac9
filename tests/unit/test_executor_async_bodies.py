"""The bodies of async flows, over a real socket pair; the test is the planner."""

from __future__ import annotations

import asyncio

import pytest

from dalsegno import flow, step, wait
from dalsegno.v1.executor_service_pb2 import Cancel
from tests.unit.body_code import add, calls_of, value_of
from tests.unit.executor_side import as_recorded, body_task, embedded, outputs

gates: dict[str, asyncio.Event] = {}


@step
async def passes(name: str, opens: str) -> str:
    gate = gates.setdefault(name, asyncio.Event())
    gates.setdefault(opens, asyncio.Event()).set()
    await gate.wait()
    return name


@step
async def names(name: str) -> str:
    return name


@flow
async def side_by_side() -> list[str]:
    async def pair(first: str, second: str, opens: str) -> list[str]:
        # What is asked first ends last.
        return [await passes(first, opens), await names(second)]

    a, b = await asyncio.gather(pair("a", "a2", "c"), pair("b", "b2", "a"))
    return [*a, *b, await names.submit("d"), add(1, 1)]  # type: ignore[list-item]


@pytest.mark.semantics(
    "5",
    "calls are numbered on the body's loop as they are created; asyncio.gather works",
    "A call is numbered when it is made (.submit())",
)
def test_an_async_body_numbers_its_calls_the_same_way_in_every_run() -> None:
    gates.clear()
    gates["b"] = asyncio.Event()
    gates["b"].set()
    with embedded(side_by_side, passes, names, add) as talk:
        reports = talk.run_body(body_task(side_by_side), {"names_3": lambda _: "d"})
        assert value_of(reports[-1]) == ["a", "a2", "b", "b2", "d", 2]
        calls = sorted(calls_of(reports), key=lambda call: call.position)
        assert [call.invocation_id for call in calls] == [
            "passes", "passes_2", "names", "names_2", "names_3", "add",
        ]  # fmt: skip
        recorded = [as_recorded(call) for call in calls]
        recorded[4].outputs.CopyFrom(outputs("d"))
        [again] = talk.run_body(body_task(side_by_side, recorded, epoch=2))
        assert value_of(again) == value_of(reports[-1])


@flow
async def waits_in_a_task() -> str:
    async def ask() -> str:
        return str(wait(name="go"))

    asking = asyncio.create_task(ask())
    await asyncio.Event().wait()
    return await asking


def test_a_wait_in_a_task_ends_an_async_body_that_waits_for_something_else() -> None:
    with embedded(waits_in_a_task) as talk:
        assert list(talk.run_body(body_task(waits_in_a_task))[-1].suspended.waits) == [1]


@flow
async def never_ends() -> str:
    return await passes("nobody opens this", "something else")


def test_a_cancelled_async_body_ends() -> None:
    gates.clear()
    with embedded(never_ends, passes) as talk:
        task = body_task(never_ends)
        talk.give(task)
        talk.begun()
        talk.tell(cancel=Cancel(tokens=[task.token]))
        assert list(talk.expect("returned").returned.tokens) == [task.token]
