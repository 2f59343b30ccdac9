"""Generated programs: a description, one interpreter of it, and the flow and the pipeline whose bodies it is.

The interpreter asks `Calls` for everything durable. In a body that is the SDK; in the oracle it is plain Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol

from dalsegno import as_completed, flow, pipeline, step

Description = dict[str, Any]
Statement = dict[str, Any]

ran: list[str] = []
"""The salts of the steps that have run in this process; each call of a program has a salt of its own."""


def digest_of(*what: object) -> str:
    """Return a text that differs wherever anything of `what` does, lists from tuples included."""
    return hashlib.blake2b(repr(what).encode(), digest_size=6).hexdigest()


def number_of(below: int, *what: object) -> int:
    """Return a number that depends on `what`."""
    return int(digest_of("number", *what), 16) % below


def compute(name: str, salt: str, inputs: Mapping[str, Any]) -> Any:
    """Return what a step returns; without a trace, and without an engine.

    Raises:
        ValueError: What a step raises that fails on purpose.
    """
    digest = digest_of(name, salt, sorted(inputs.items(), key=lambda one: one[0]))
    match name:
        case "split":
            return f"{digest} left", f"{digest} right"
        case "count":
            return number_of(4, digest)
        case "flag":
            return number_of(2, digest) == 1
        case "collect":
            return [f"{digest} {index}" for index in range(2)]
        case "fragile" if number_of(3, digest) == 0:
            raise ValueError(f"on purpose: {digest}")
        case _:
            return digest


def _counted(name: str, salt: str, **inputs: Any) -> Any:
    ran.append(salt)
    return compute(name, salt, inputs)


@step
def mix(salt: str, first: Any, second: Any = None) -> str:
    return str(_counted("mix", salt, first=first, second=second))


@step
def gather(salt: str, parts: Any) -> str:
    return str(_counted("gather", salt, parts=parts))


@step
def split(salt: str, parts: Any) -> tuple[Annotated[str, "left"], Annotated[str, "right"]]:
    left, right = _counted("split", salt, parts=parts)
    return left, right


@step
def count(salt: str, parts: Any) -> int:
    return int(_counted("count", salt, parts=parts))


@step
def flag(salt: str, parts: Any) -> bool:
    return bool(_counted("flag", salt, parts=parts))


@step
def collect(salt: str, parts: Any) -> list[str]:
    return list(_counted("collect", salt, parts=parts))


@step
def fragile(salt: str, parts: Any) -> str:
    return str(_counted("fragile", salt, parts=parts))


STEPS = {one.name: one for one in (mix, gather, split, count, flag, collect, fragile)}
INPUT_NAMES = {name: ("first", "second") if name == "mix" else ("parts",) for name in STEPS}
FLOW_INPUTS = ("x", "y", "z")


class Future(Protocol):
    """What a submitted call is to the interpreter."""

    def result(self) -> Any: ...
    def exception(self) -> BaseException | None: ...


class Calls(Protocol):
    """Makes the durable calls of a program."""

    def call(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any: ...
    def submit(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any: ...
    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]: ...
    def as_completed(self, futures: Sequence[Any]) -> list[Any]: ...


class DurableCalls:
    """Those of the SDK."""

    def call(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any:
        return STEPS[name].with_options(id=id, after=list(after) or None)(**inputs)

    def submit(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any:
        return STEPS[name].with_options(id=id, after=list(after) or None).submit(**inputs)

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        return STEPS[name].map([salt for salt, _ in rows], [value for _, value in rows])

    def as_completed(self, futures: Sequence[Any]) -> list[Any]:
        return list(as_completed(futures))


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
        self._mapped: dict[str, list[Any]] = {}
        self._do: dict[str, Callable[[Statement, str], None]] = {
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
        }

    def run(self, program: Description) -> Any:
        """Run it, and return what it returns."""
        try:
            self._block(program["body"], "")
        except Exception:
            # What is under way ends before the program does, so that what has run is certain.
            for future in [*self._futures.values(), *(one for many in self._mapped.values() for one in many)]:
                future.exception()
            raise
        return self._value(program["returns"])

    def _block(self, body: Sequence[Statement], path: str) -> None:
        for statement in body:
            self._do[statement["do"]](statement, path)

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

    def _made(self, statement: Statement, path: str) -> tuple[str, dict[str, Any], str | None, list[Any]]:
        salt = f"{statement['label']}{path}"
        inputs = {"salt": salt, **{name: self._value(one) for name, one in statement["inputs"].items()}}
        after = [self._values[one] for one in statement["after"] if self._values.get(one) is not None]
        return statement["step"], inputs, f"own-{salt}" if statement["own_id"] else None, after

    def _guarded(self, statement: Statement, act: Callable[[], Any]) -> None:
        if not statement["catch"]:
            self._values[statement["into"]] = act()
            return
        try:
            self._values[statement["into"]] = act()
        except ValueError as error:
            self._values.pop(statement["into"], None)
            self._values[f"{statement['into']} error"] = str(error)

    def _call(self, statement: Statement, path: str) -> None:
        self._guarded(statement, lambda: self._calls.call(*self._made(statement, path)))

    def _submit(self, statement: Statement, path: str) -> None:
        self._futures[f"{statement['label']}{path}"] = self._futures[statement["label"]] = self._calls.submit(
            *self._made(statement, path)
        )

    def _take(self, statement: Statement, path: str) -> None:
        future = self._futures.get(statement["future"])
        if future is not None:
            self._guarded(statement, future.result)

    def _map(self, statement: Statement, path: str) -> None:
        rows = [
            (f"{statement['label']}{path}[{index}]", self._value(one)) for index, one in enumerate(statement["over"])
        ]
        self._mapped[f"{statement['label']}{path}"] = self._mapped[statement["label"]] = self._calls.map(
            statement["step"], rows
        )

    def _collect(self, statement: Statement, path: str) -> None:
        futures = self._mapped.get(statement["mapped"])
        if futures is not None:
            ended = self._calls.as_completed(futures) if statement["as_completed"] else futures
            self._values[statement["into"]] = sorted(one.result() for one in ended)

    def _compute(self, statement: Statement, path: str) -> None:
        self._values[statement["into"]] = digest_of(self._value(statement["of"]))

    def _append(self, statement: Statement, path: str) -> None:
        value = self._values.get(statement["to"])
        if isinstance(value, list):
            value.append(digest_of(self._value(statement["of"])))

    def _repeat(self, statement: Statement, path: str) -> None:
        for turn in range(number_of(3, self._value(statement["of"]))):
            self._block(statement["body"], f"{path}.{turn}")

    def _branch(self, statement: Statement, path: str) -> None:
        chosen = "body" if number_of(2, self._value(statement["of"])) else "otherwise"
        self._block(statement[chosen], path)

    def _fail(self, statement: Statement, path: str) -> None:
        value = self._value(statement["of"])
        if number_of(3, value) == 0:
            raise RuntimeError(f"the body: {digest_of(value)}")


@flow
def generated_flow(program: Description, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return Interpreter(DurableCalls(), {"x": x, "y": y, "z": z}).run(program)


@pipeline
def generated_pipeline(program: Any, x: Any, y: Any = "default y", z: Any = "default z") -> Any:
    return Interpreter(DurableCalls(), {"x": x, "y": y, "z": z}).run(program)
