"""Generated programs: a description, one interpreter of it, and the flows and the pipeline whose bodies it is.

The interpreter asks `Calls` for everything durable. In a body that is the SDK; in the oracle it is plain Python. It is
written with `async`, and driven by hand where the body is a plain function.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from dalsegno import as_completed, flow, pipeline, wait
from tests.e2e.oracle.steps import STEPS, digest_of, number_of

Description = dict[str, Any]
Statement = dict[str, Any]

FLOW_INPUTS = ("x", "y", "z")


class Made:
    """One call as the interpreter asks for it: step, inputs, ID and what it comes after."""

    def __init__(self, name: str, inputs: Mapping[str, Any], id: str | None = None, after: Sequence[Any] = ()) -> None:
        self.name, self.inputs, self.id, self.after = name, inputs, id, after


class Calls(Protocol):
    """Makes the durable calls of a program."""

    async def call(self, made: Made) -> Any: ...
    async def together(self, made: Sequence[Made]) -> list[Any]: ...
    async def wait(self, name: str) -> Any: ...
    def submit(self, made: Made) -> Any: ...
    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]: ...
    async def result(self, future: Any) -> Any: ...
    async def settle(self, future: Any) -> None: ...
    async def completed(self, futures: Sequence[Any]) -> list[Any]: ...


class DurableCalls:
    """Those of the SDK in a body that is a plain function, or that draws a graph."""

    async def call(self, made: Made) -> Any:
        return _prepared(made)(**made.inputs)

    async def together(self, made: Sequence[Made]) -> list[Any]:
        futures = [self.submit(one) for one in made]
        errors = [future.exception() for future in futures]
        return [future.result() if error is None else error for future, error in zip(futures, errors, strict=True)]

    async def wait(self, name: str) -> Any:
        return wait(name=name, schema=str)

    def submit(self, made: Made) -> Any:
        return _prepared(made).submit(**made.inputs)

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        return STEPS[name].map([salt for salt, _ in rows], [value for _, value in rows])

    async def result(self, future: Any) -> Any:
        return future.result()

    async def settle(self, future: Any) -> None:
        future.exception()

    async def completed(self, futures: Sequence[Any]) -> list[Any]:
        return [future.result() for future in as_completed(futures)]


class DrawnCalls(DurableCalls):
    """Those of the SDK in the body of a pipeline, where nothing is under way."""

    async def settle(self, future: Any) -> None:
        """There is nothing to wait for."""


class AwaitedCalls(DurableCalls):
    """Those of the SDK in an ``async def`` body."""

    async def call(self, made: Made) -> Any:
        value = _prepared(made)(**made.inputs)
        return await value if inspect.isawaitable(value) else value

    async def together(self, made: Sequence[Made]) -> list[Any]:
        under_way: list[Awaitable[Any]] = []
        for one in made:
            is_async = inspect.iscoroutinefunction(STEPS[one.name].function)
            under_way.append(_prepared(one)(**one.inputs) if is_async else self.submit(one))
        return list(await asyncio.gather(*under_way, return_exceptions=True))

    async def result(self, future: Any) -> Any:
        return await future

    async def settle(self, future: Any) -> None:
        await asyncio.gather(future, return_exceptions=True)

    async def completed(self, futures: Sequence[Any]) -> list[Any]:
        return list(await asyncio.gather(*futures))


def _prepared(made: Made) -> Any:
    return STEPS[made.name].with_options(id=made.id, after=list(made.after) or None)


class Interpreter:
    """Runs a program.

    Args:
        calls: Makes its durable calls.
        inputs: The flow inputs.
    """

    def __init__(self, calls: Calls, inputs: Mapping[str, Any]) -> None:
        self._calls = calls
        self._inputs = inputs
        self._values: dict[str, Any] = {}
        self._futures: dict[str, Any] = {}
        self._started: list[tuple[str, Any]] = []
        self._mapped: dict[str, list[Any]] = {}
        self._do: dict[str, Callable[[Statement, str], Coroutine[Any, Any, None]]] = {
            "call": self._call,
            "submit": self._submit,
            "take": self._take,
            "map": self._map,
            "collect": self._collect,
            "compute": self._compute,
            "append": self._append,
            "repeat": self._repeat,
            "branch": self._branch,
            "fail": self._fail,
            "wait": self._wait,
            "together": self._together,
        }

    async def run(self, program: Description) -> Any:
        """Run it, and return what it returns."""
        try:
            await self._block(program["body"], "")
        except Exception:
            await self._settle(len(self._started))
            raise
        await self._settle(len(self._started) - 1)
        return self._value(program["returns"])

    async def _settle(self, most: int) -> None:
        """Wait for what is under way, so that what has run is certain.

        The failure of one call is left for the body's end to find: the last of those that may fail.
        """
        certain = [future for name, future in self._started if name != "fragile"]
        fragile = [future for name, future in self._started if name == "fragile"]
        for future in certain + fragile[: max(0, most - len(certain))]:
            await self._calls.settle(future)

    async def _block(self, body: Sequence[Statement], path: str) -> None:
        for statement in body:
            await self._do[statement["do"]](statement, path)

    def _value(self, expression: Any) -> Any:
        kind, what = expression[0], expression[1]
        match kind:
            case "constant":
                return what
            case "input":
                return self._inputs[what]
            case "variable":
                return self._values.get(what)
            case "item":
                pair = self._values.get(what)
                return None if pair is None else pair[expression[2]]
            case "list":
                return [self._value(one) for one in what]
            case "tuple":
                return tuple(self._value(one) for one in what)
            case _:
                return {key: self._value(one) for key, one in what.items()}

    def _made(self, statement: Statement, path: str) -> Made:
        salt = f"{statement['label']}{path}"
        inputs = {"salt": salt, **{name: self._value(one) for name, one in statement["inputs"].items()}}
        after = [self._values[one] for one in statement["after"] if self._values.get(one) is not None]
        return Made(statement["step"], inputs, f"own-{salt}" if statement["own_id"] else None, after)

    async def _guarded(self, statement: Statement, value: Awaitable[Any]) -> None:
        if not statement["catch"]:
            self._values[statement["into"]] = await value
            return
        try:
            self._values[statement["into"]] = await value
        except ValueError as error:
            self._values.pop(statement["into"], None)
            self._values[f"{statement['into']} error"] = str(error)

    async def _call(self, statement: Statement, path: str) -> None:
        await self._guarded(statement, self._calls.call(self._made(statement, path)))

    async def _wait(self, statement: Statement, path: str) -> None:
        self._values[statement["into"]] = await self._calls.wait(statement["name"])

    async def _together(self, statement: Statement, path: str) -> None:
        outcomes = await self._calls.together([self._made(one, path) for one in statement["calls"]])
        for one, outcome in zip(statement["calls"], outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, ValueError):
                raise outcome
            self._values[one["into"]] = str(outcome) if isinstance(outcome, ValueError) else outcome

    async def _submit(self, statement: Statement, path: str) -> None:
        future = self._calls.submit(self._made(statement, path))
        self._futures[statement["label"]] = future
        self._started.append((statement["step"], future))

    async def _take(self, statement: Statement, path: str) -> None:
        future = self._futures.get(statement["future"])
        if future is not None:
            await self._guarded(statement, self._calls.result(future))

    async def _map(self, statement: Statement, path: str) -> None:
        rows = [
            (f"{statement['label']}{path}[{index}]", self._value(one)) for index, one in enumerate(statement["over"])
        ]
        futures = self._calls.map(statement["step"], rows)
        self._mapped[statement["label"]] = futures
        self._started += [(statement["step"], future) for future in futures]

    async def _collect(self, statement: Statement, path: str) -> None:
        futures = self._mapped.get(statement["mapped"])
        if futures is not None:
            in_order = not statement["as_completed"]
            values = [await self._calls.result(one) for one in futures if in_order]
            self._values[statement["into"]] = sorted(values or await self._calls.completed(futures))

    async def _compute(self, statement: Statement, path: str) -> None:
        self._values[statement["into"]] = digest_of(self._value(statement["of"]))

    async def _append(self, statement: Statement, path: str) -> None:
        value = self._values.get(statement["to"])
        if isinstance(value, list):
            value.append(digest_of(self._value(statement["of"])))

    async def _repeat(self, statement: Statement, path: str) -> None:
        for turn in range(number_of(3, self._value(statement["of"]))):
            await self._block(statement["body"], f"{path}.{turn}")

    async def _branch(self, statement: Statement, path: str) -> None:
        chosen = "body" if number_of(2, self._value(statement["of"])) else "otherwise"
        await self._block(statement[chosen], path)

    async def _fail(self, statement: Statement, path: str) -> None:
        value = self._value(statement["of"])
        if number_of(3, value) == 0:
            raise RuntimeError(f"the body: {digest_of(value)}")


def interpreted(program: Description, calls: Calls, inputs: Mapping[str, Any]) -> Any:
    """Run a program whose calls never suspend the coroutine, and return what it returns."""
    running = Interpreter(calls, inputs).run(program)
    try:
        running.send(None)
    except StopIteration as ended:
        return ended.value
    finally:
        running.close()
    raise AssertionError("a plain body awaited something")


@flow
def generated_flow(program: Description, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return interpreted(program, DurableCalls(), {"x": x, "y": y, "z": z})


@flow
async def generated_async_flow(program: Description, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return await Interpreter(AwaitedCalls(), {"x": x, "y": y, "z": z}).run(program)


@pipeline
def generated_pipeline(program: Any, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return interpreted(program, DrawnCalls(), {"x": x, "y": y, "z": z})
