"""The user code that the workers of these tests run."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import time
from pathlib import Path

from dalsegno import flow, pipeline, step


@step
def add(a: int, b: int) -> int:
    return a + b


@step
async def double(a: int) -> int:
    await asyncio.sleep(0)
    return a * 2


@step
def meet(folder: str) -> int:
    """Say that it runs, and where; go on when told so."""
    with (Path(folder) / "attempts").open("a") as attempts:
        attempts.write("x")
    (Path(folder) / "started").write_text(f"{os.getpid()} {os.getppid()}\n")  # a FIFO: waits for its reader
    (Path(folder) / "go").read_text()  # a FIFO: waits for its writer
    return os.getpid()


@step(retries=1, retry_delay=0.01)
def crashes_once(folder: str) -> int:
    marker = Path(folder) / "crashed"
    if not marker.exists():
        marker.touch()
        ctypes.string_at(0)  # reads where nothing may be read
    return 1


@step
def crashes() -> int:
    os._exit(3)


@step(timeout=0.3)
def too_slow() -> int:
    time.sleep(60)
    return 1


@step
def holds_the_interpreter(seconds: float) -> int:
    # A function called through PyDLL keeps the GIL: nothing else in the process runs meanwhile.
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return 1


@flow
def chain(length: int) -> int:
    value = 0
    for number in range(length):
        value = add(value, number)
    return value


@flow
async def fan(width: int) -> int:
    direct = await asyncio.gather(*(double(number) for number in range(width)))
    submitted = [add.submit(number, 1) for number in direct]
    return sum([await future for future in submitted])


@flow
def meeting(folder: str) -> list[int]:
    before = add(1, 1)
    pid = meet(folder)
    return [before, pid, add(before, 1)]


@step
def tick(fifo: str, number: int) -> int:
    """Say that it runs."""
    with Path(fifo).open("w") as told:
        told.write("tick\n")
    return number + 1


@flow
def ticking(fifo: str, length: int) -> int:
    value = 0
    for _ in range(length):
        value = tick(fifo, value)
    return value + sum(future.result() for future in [tick.submit(fifo, number) for number in range(length)])


@flow
def meeting_elsewhere(folder: str) -> int:
    return meet.submit(folder).result()


@flow
def crashing_in_the_body(folder: str) -> int:
    return crashes_once(folder)


@flow
def crashing_for_good() -> str:
    try:
        crashes()
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return str(error)
    return "no error"


@flow
def timing_out() -> str:
    try:
        too_slow()
    except TimeoutError as error:
        return str(error)
    return "no error"


CROWD = 200
_all_are_there = threading.Barrier(CROWD)


@flow
def crowd() -> int:
    """Go on once as many bodies as make a crowd run in this process at the same time."""
    _all_are_there.wait(60)
    return add(1, 1)


@flow
def dies() -> None:
    os._exit(4)


@flow
def holding(seconds: float) -> int:
    return holds_the_interpreter(seconds)


@pipeline
def fixed(folder: str) -> None:
    first = add(1, 2)
    crashes_once(folder)
    _ = double(add(first, 3))


@step
def where() -> int:
    return os.getpid()


@pipeline
def whereabouts(count: int) -> None:
    for _ in range(count):
        where()


@pipeline
def wide(width: int) -> None:
    for number in range(width):
        add(number, 1)
