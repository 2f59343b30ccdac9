"""What a full execution gives, in plain Python: no engine, no recording, nothing reused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.oracle.programs import INPUT_NAMES, Description, Interpreter, compute


@dataclass
class Overrides:
    """What replays have overridden; a replay of a replay adds to what that has."""

    inputs: dict[str, Any] = field(default_factory=dict)
    checkpoints: dict[str, Any] = field(default_factory=dict)
    step_inputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def and_then(self, more: Overrides) -> Overrides:
        """Return both; `more` wins."""
        step_inputs = {
            one: {**self.step_inputs.get(one, {}), **more.step_inputs.get(one, {})}
            for one in {**self.step_inputs, **more.step_inputs}
        }
        return Overrides({**self.inputs, **more.inputs}, {**self.checkpoints, **more.checkpoints}, step_inputs)


@dataclass
class PlainCall:
    """One call.

    Attributes:
        inputs: What it takes, as values.
        takes: The invocations whose outputs it takes; known in pipelines only.
        after: Those that it comes after otherwise.
        after_values: The same in flows: the values that were given.
        reads: The flow inputs that it takes as they are; known in pipelines only.
        state: ``completed``, ``failed`` or ``blocked``.
        value: What it returns.
        given: What its consumers receive, where that is overridden.
        seen: Whether the body has asked for the value; always so in pipelines.
        stale: Whether it was reused though a flow input that it takes had been overridden.
    """

    invocation_id: str
    name: str
    inputs: Mapping[str, Any]
    takes: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    after_values: tuple[Any, ...] = ()
    reads: frozenset[str] = frozenset()
    state: str = "completed"
    value: Any = None
    error: ValueError | None = None
    overridden: bool = False
    given: Any = None
    seen: bool = True
    stale: bool = False

    @property
    def salt(self) -> str:
        return str(self.inputs["salt"])

    @property
    def received(self) -> Any:
        return self.given if self.overridden else self.value

    def execute(self) -> None:
        try:
            self.value = compute(self.name, self.salt, {k: v for k, v in self.inputs.items() if k != "salt"})
        except ValueError as error:
            self.state, self.error = "failed", error


@dataclass
class PlainRun:
    """A whole run: its calls in order, and how it has ended."""

    calls: dict[str, PlainCall]
    result: Any = None
    error: Exception | None = None


class Ids:
    """Invocation IDs as SEMANTICS §1 gives them."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def give(self, name: str, explicit: str | None) -> str:
        candidates = (name if number == 1 else f"{name}_{number}" for number in range(1, 10_000))
        chosen = explicit or next(one for one in candidates if one not in self.taken)
        self.taken.add(chosen)
        return chosen


# Flows.


class PlainFuture:
    """The value of a call, which has been made already."""

    def __init__(self, call: PlainCall) -> None:
        self._call = call

    def result(self) -> Any:
        self._call.seen = True
        return received(self._call)

    def exception(self) -> BaseException | None:
        self._call.seen = True
        return None if self._call.overridden else self._call.error


def received(call: PlainCall) -> Any:
    """Return what a body receives from a call: a copy of its own."""
    if call.overridden:
        return copied(call.given)
    if call.error is not None:
        raise ValueError(*call.error.args)
    return copied(call.value)


def copied(value: Any) -> Any:
    """Return a copy of a value that shares nothing that can be changed."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    return type(value)(copied(one) for one in value) if isinstance(value, list | tuple) else value


class PlainCalls:
    """Makes the calls of a flow's body."""

    def __init__(self, overrides: Overrides) -> None:
        self.made: dict[str, PlainCall] = {}
        self._overrides = overrides
        self._ids = Ids()

    def _make(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> PlainCall:
        invocation_id = self._ids.give(name, id)
        replaced = self._overrides.step_inputs.get(invocation_id, {})
        taken = copied({**({"second": None} if name == "mix" else {}), **inputs, **replaced})
        call = PlainCall(invocation_id, name, taken)
        call.after_values = tuple(after)
        call.overridden = invocation_id in self._overrides.checkpoints
        call.given = self._overrides.checkpoints.get(invocation_id)
        call.execute()
        self.made[invocation_id] = call
        return call

    def call(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any:
        return received(self._make(name, inputs, id, after))

    def submit(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any:
        call = self._make(name, inputs, id, after)
        call.seen = False
        return PlainFuture(call)

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        first = INPUT_NAMES[name][0]
        return [self.submit(name, {"salt": salt, first: value}, None, ()) for salt, value in rows]

    def as_completed(self, futures: Sequence[Any]) -> list[Any]:
        return list(futures)


def run_flow(program: Description, inputs: Mapping[str, Any], overrides: Overrides) -> PlainRun:
    """Run the body of a flow."""
    calls = PlainCalls(overrides)
    run = PlainRun(calls.made)
    try:
        run.result = Interpreter(calls, copied({**inputs, **overrides.inputs})).run(program)
        for call in [one for one in calls.made.values() if not one.seen]:
            received(call)
    except (ValueError, RuntimeError) as error:
        run.result, run.error = None, error
    return run


# Pipelines.


@dataclass(frozen=True)
class Output:
    """One output of a call, until it is known."""

    call: str
    index: int | None = None


@dataclass(frozen=True)
class Read:
    """A flow input that is passed on."""

    name: str


@dataclass(frozen=True)
class Drawn:
    """The future of a call of a pipeline."""

    outputs: Any

    def result(self) -> Any:
        return self.outputs


class PlainGraph:
    """Draws the graph of a pipeline."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str, Mapping[str, Any], list[Any]]] = []
        self._ids = Ids()

    def call(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any:
        invocation_id = self._ids.give(name, id)
        self.nodes.append((invocation_id, name, inputs, list(after)))
        if name == "split":
            return Output(invocation_id, 0), Output(invocation_id, 1)
        return Output(invocation_id)

    def submit(self, name: str, inputs: Mapping[str, Any], id: str | None, after: Sequence[Any]) -> Any:
        return Drawn(self.call(name, inputs, id, after))

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        raise NotImplementedError

    def as_completed(self, futures: Sequence[Any]) -> list[Any]:
        raise NotImplementedError


def leaves(value: Any) -> Iterator[Any]:
    """Yield what a structure contains."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def run_pipeline(
    program: Description, inputs: Mapping[str, Any], overrides: Overrides, stale: Mapping[str, PlainCall]
) -> PlainRun:
    """Run a pipeline; `stale` are calls that are kept though they read an overridden input."""
    values = {**inputs, **overrides.inputs}
    graph = PlainGraph()
    returned = Interpreter(graph, {name: Read(name) for name in values}).run(program)
    run = PlainRun({})

    def known(value: Any) -> Any:
        match value:
            case Output(call, index):
                given = run.calls[call].received
                return given if index is None else given[index]
            case Read(name):
                return values[name]
            case dict():
                return {key: known(one) for key, one in value.items()}
            case list() | tuple():
                return type(value)(known(one) for one in value)
        return value

    for invocation_id, name, taken, after in graph.nodes:
        taken = {**({"second": None} if name == "mix" else {}), **taken, **overrides.step_inputs.get(invocation_id, {})}
        takes = frozenset(one.call for one in leaves(taken) if isinstance(one, Output))
        order = frozenset(one.call for one in leaves(after) if isinstance(one, Output))
        reads = frozenset(one.name for one in leaves(taken) if isinstance(one, Read))
        call = PlainCall(invocation_id, name, taken, takes, order, reads=reads)
        call.overridden = invocation_id in overrides.checkpoints
        call.given = overrides.checkpoints.get(invocation_id)
        run.calls[invocation_id] = call
        if any(run.calls[up].state != "completed" and not run.calls[up].overridden for up in takes | order):
            call.state = "blocked"
        elif invocation_id in stale:
            call.inputs, call.stale = known(taken), True
            call.state, call.value = stale[invocation_id].state, stale[invocation_id].value
        else:
            call.inputs = known(taken)
            call.execute()
    complete = all(one.state == "completed" for one in run.calls.values())
    run.result = known(returned) if complete else None
    return run
