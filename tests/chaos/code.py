"""The user code of the failure suite: the programs of the executing oracle, with steps that keep a journal.

What a step returns depends on what it is given and on nothing else. How long it takes, and whether its first attempt
fails, does not matter to the outcome: every step may be tried again, as processes are killed under it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from dalsegno import flow, pipeline, step, wait
from dalsegno.steps import Step
from dalsegno_executor.runner.log_capture import current_writer
from tests.chaos import journal
from tests.e2e.oracle.programs import AwaitedCalls, Description, DurableCalls, Interpreter, Made, interpreted
from tests.e2e.oracle.steps import compute, digest_of, number_of

RETRIES = 5
_LONGEST_S = 0.25


class Flaky(Exception):
    """What a step's first attempt in a process raises now and then."""


def _run(name: str, salt: str, **inputs: Any) -> Any:
    """Compute what a step returns, and write down that it ran."""
    writer = current_writer.get()
    assert writer is not None, "a step runs in an executor"
    who = writer._who()
    execution = str(UUID(bytes=who.token.execution_id))
    run = uuid.uuid4().hex
    key = digest_of(name, salt, sorted(inputs.items()))
    journal.write(
        {
            "run": run, "execution": execution, "number": who.number, "epoch": who.token.epoch,
            "invocation_id": who.invocation_id, "attempt": who.attempt, "salt": salt,
            "inputs": digest_of(sorted({"salt": salt, **inputs}.items())), "started": time.time(),
            "executor": os.getppid(),
        }
    )  # fmt: skip
    time.sleep(_LONGEST_S * number_of(8, key, "seconds") / 8 if number_of(3, key, "slow") == 0 else 0.0)
    output: str | None = None
    try:
        if who.attempt == 1 and number_of(6, key, "flaky") == 0:
            raise Flaky(f"the first attempt of {salt} fails on purpose")
        value = compute(name, salt, inputs)
        output = digest_of(value)
        return value
    finally:
        journal.write({"run": run, "finished": time.time(), "output": output})


again = step(retries=RETRIES, retry_delay=0.02)


@again
def mix(salt: str, first: Any, second: Any = None) -> str:
    return str(_run("mix", salt, first=first, second=second))


@again
def gather(salt: str, parts: Any) -> str:
    return str(_run("gather", salt, parts=parts))


@again
def split(salt: str, parts: Any) -> tuple[Annotated[str, "left"], Annotated[str, "right"]]:
    left, right = _run("split", salt, parts=parts)
    return left, right


@again
def count(salt: str, parts: Any) -> int:
    return int(_run("count", salt, parts=parts))


@step(retries=RETRIES, retry_delay=0.02, timeout=60)
def flag(salt: str, parts: Any) -> bool:
    return bool(_run("flag", salt, parts=parts))


@again
def collect(salt: str, parts: Any) -> list[str]:
    return list(_run("collect", salt, parts=parts))


@again
def fragile(salt: str, parts: Any) -> str:
    return str(_run("fragile", salt, parts=parts))


@again
async def later(salt: str, parts: Any) -> str:
    return str(_run("later", salt, parts=parts))


STEPS: Mapping[str, Step[..., Any]] = {
    one.name: one for one in (mix, gather, split, count, flag, collect, fragile, later)
}


def _prepared(made: Made) -> Any:
    return STEPS[made.name].with_options(id=made.id, after=list(made.after) or None)


class Calls(DurableCalls):
    """The durable calls of a program in a plain body, made with these steps."""

    async def call(self, made: Made) -> Any:
        return _prepared(made)(**made.inputs)

    def submit(self, made: Made) -> Any:
        return _prepared(made).submit(**made.inputs)

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        return STEPS[name].map([salt for salt, _ in rows], [value for _, value in rows])


class CallsDrawn(Calls):
    """The same in the body of a pipeline, where nothing is under way."""

    async def settle(self, future: Any) -> None:
        """There is nothing to wait for."""


class CallsAwaited(AwaitedCalls):
    """The same in an ``async def`` body."""

    async def call(self, made: Made) -> Any:
        value = _prepared(made)(**made.inputs)
        return await value if inspect.isawaitable(value) else value

    async def together(self, made: Sequence[Made]) -> list[Any]:
        under_way: list[Awaitable[Any]] = []
        for one in made:
            is_async = STEPS[one.name].is_async
            under_way.append(_prepared(one)(**one.inputs) if is_async else self.submit(one))
        return list(await asyncio.gather(*under_way, return_exceptions=True))

    def submit(self, made: Made) -> Any:
        return _prepared(made).submit(**made.inputs)

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        return STEPS[name].map([salt for salt, _ in rows], [value for _, value in rows])


@flow
def random_flow(program: Description, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return interpreted(program, Calls(), {"x": x, "y": y, "z": z})


@flow
async def random_async_flow(program: Description, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return await Interpreter(CallsAwaited(), {"x": x, "y": y, "z": z}).run(program)


@pipeline
def random_pipeline(program: Any, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return interpreted(program, CallsDrawn(), {"x": x, "y": y, "z": z})


@flow
def asking_flow(salt: str, x: Any) -> Any:
    """Ask twice, with steps before, between and after; one of them runs on while the body is gone."""
    first = mix(f"{salt} first", x)
    beside = gather.submit(f"{salt} beside", first)
    answers = []
    for turn in range(2):
        answer = wait(name="go", schema=str)
        answers.append(mix(f"{salt} answered {turn}", answer, first))
    return [first, *answers, gather(f"{salt} last", [beside.result(), answers])]


def asked_for(salt: str, x: Any, answers: Sequence[str]) -> Any:
    """Return what `asking_flow` returns, computed without an engine."""
    first = compute("mix", f"{salt} first", {"first": x, "second": None})
    beside = compute("gather", f"{salt} beside", {"parts": first})
    said = [
        compute("mix", f"{salt} answered {turn}", {"first": answer, "second": first})
        for turn, answer in enumerate(answers)
    ]
    return [first, *said, compute("gather", f"{salt} last", {"parts": [beside, said]})]
