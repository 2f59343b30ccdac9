"""A script whose flows do all that a body can do: wait, submit, map, await; from threads and from a forked process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import suppress
from typing import Any

from dalsegno import Client, as_completed, flow, step, wait
from dalsegno.errors import ContextError, ExecutionError, UserCodeError, WaitValidationError
from tests.e2e.sdk_scripts.saying import checkpoints, say


@step
async def double(x: int) -> int:
    await asyncio.sleep(0)
    return x * 2


@step
def increment(x: int) -> int:
    return x + 1


@flow
async def gathering(n: int) -> int:
    doubled = await asyncio.gather(*(double(x) for x in range(n)))
    future = increment.submit(doubled[-1])
    return sum(doubled) + await future


@flow
def mapping(n: int) -> list[int]:
    futures = increment.map(range(n))
    total = sum(future.result() for future in as_completed(futures))
    special = increment.with_options(id="special", after=futures).submit(total)
    return [total, special.result()]


@flow
def asking() -> int:
    answer: int = wait(name="count", schema=int, question="How many?")
    return increment(answer)


@step
def using_a_client() -> None:
    Client()


@flow
def misusing() -> None:
    try:
        using_a_client()
    except ContextError:
        gathering.run(1)


def forked() -> int:
    child = os.fork()
    if child == 0:
        say("child", result=mapping(2))
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    say("async", result=asyncio.run(gathering(3)))
    handle = mapping.run(4)
    say(
        "map",
        result=handle.wait(30),
        checkpoints=checkpoints(handle.execution),
        replayed=mapping.replay(handle.exec_id, from_="special").wait(30),
    )
    client = Client()
    asked = asking.run()
    while asked.status != "waiting":
        with suppress(TimeoutError):
            asked.wait(0.05)
    question = asked.execution.waits["count"]
    try:
        client.executions.input(asked.exec_id, value="many")
    except WaitValidationError as error:
        say("not an answer", text=str(error), still=asked.status)
    client.executions.input(asked.exec_id, wait="count", value=4)
    say("answered", result=asked.wait(30), question=question.question, schema=question.schema)
    cancelled = asking.run()
    while cancelled.status != "waiting":
        with suppress(TimeoutError):
            cancelled.wait(0.05)
    client.executions.cancel(cancelled, "not needed")
    try:
        cancelled.wait(30)
    except ExecutionError as error:
        say("cancelled", reason=error.reason, status=cancelled.status)
    try:
        misusing()
    except UserCodeError as error:
        say("misused", text=str(error))
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(mapping(2))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("threads", results=results)
    say("forked", code=forked(), parent=mapping(1))
