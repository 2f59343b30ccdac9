"""Flows whose submitted steps end in the order that the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dalsegno import StepFuture, as_completed, flow, step, wait

RACERS = (1, 2, 3)


@step
def race(number: int, folder: str) -> int:
    (Path(folder) / f"go{number}").read_text()  # a FIFO: waits for its writer
    return number


@step
def note(number: int) -> int:
    """A call that is made, and numbered, in the order in which the body is given values."""
    return number


@step
def finish(order: list[int]) -> list[int]:
    return order


def tell(folder: str, number: int) -> None:
    with (Path(folder) / "given").open("a") as given:  # a FIFO that the test keeps open
        given.write(f"{number}\n")


@flow
def completing(folder: str, asks: bool) -> list[int]:
    futures = race.map(RACERS, folder=folder)
    order = []
    for future in as_completed(futures):
        order.append(note(future.result()))
        tell(folder, order[-1])
    if asks:
        wait(name="go")
    return finish(order)


@flow
def in_the_order_of_the_calls(folder: str, asks: bool) -> list[int]:
    order = []
    for future in [race.submit(number, folder) for number in RACERS]:
        order.append(note(future.result()))
        tell(folder, order[-1])
    if asks:
        wait(name="go")
    return finish(order)


@flow
async def gathering(folder: str, asks: bool) -> list[int]:
    async def follow(future: StepFuture[int]) -> int:
        number = note(await future)
        tell(folder, number)
        return number

    order = await asyncio.gather(*(follow(future) for future in race.map(RACERS, folder=folder)))
    if asks:
        wait(name="go")
    return finish(list(order))


FLOWS: dict[Callable[..., Any], tuple[int, ...]] = {
    completing: (3, 1, 2),
    in_the_order_of_the_calls: RACERS,
    gathering: RACERS,
}
"""In which order each is given the values where the steps end in the order 3, 1, 2."""
