"""What a full execution gives, in plain Python: no engine, no recording, nothing reused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.oracle.programs import Description, Made, interpreted
from tests.e2e.oracle.steps import INPUT_NAMES, compute


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
        changed: Whether it ran with code that is not today's.
        is_wait: Whether it is a wait, whose value is the answer.
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
    changed: bool = False
    is_wait: bool = False
    position: int = 0

    @property
    def salt(self) -> str:
        return str(self.inputs["salt"])

    @property
    def received(self) -> Any:
        return self.given if self.overridden else self.value

    def execute(self, mended: frozenset[str] = frozenset()) -> None:
        given = {k: v for k, v in self.inputs.items() if k != "salt"}
        try:
            self.value = compute(self.name, self.salt, given, well=self.salt in mended)
        except ValueError as error:
            self.state, self.error = "failed", error


@dataclass
class PlainRun:
    """A whole run: its calls in order, waits included, and how it has ended; or it waits, or is no repetition.

    Attributes:
        unmade: What its source recorded, and it has not come to before it waits: that it shows too.
    """

    calls: dict[str, PlainCall]
    result: Any = None
    error: Exception | None = None
    waiting: bool = False
    diverged: str | None = None
    unmade: dict[str, PlainCall] = field(default_factory=dict)

    @property
    def steps(self) -> dict[str, PlainCall]:
        return {one: call for one, call in self.calls.items() if not call.is_wait}

    @property
    def recorded(self) -> dict[str, PlainCall]:
        """What a replay finds."""
        return {**self.calls, **self.unmade}

    @property
    def recorded_steps(self) -> list[PlainCall]:
        found = [call for call in self.recorded.values() if not call.is_wait]
        return sorted(found, key=lambda call: call.position)

    @property
    def waits(self) -> list[str]:
        return [one for one, call in self.calls.items() if call.is_wait]

    @property
    def to_mend(self) -> frozenset[str]:
        """The calls whose failure has ended it."""
        args = self.error.args if isinstance(self.error, ValueError) else None
        return frozenset(
            call.salt for call in self.calls.values() if call.error is not None and call.error.args == args
        )


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


class Unanswered(BaseException):
    """The body has come to a wait that nobody answers."""


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


@dataclass(frozen=True)
class Circumstances:
    """What a run of a flow depends on beside its program and its overrides.

    Attributes:
        generation: Tells the answers to its waits from those of other runs.
        answered: After how many answers it is left waiting, if it is.
        mended: The calls that do not fail.
    """

    generation: int = 0
    answered: int | None = None
    mended: frozenset[str] = frozenset()

    def answer(self, invocation_id: str) -> str:
        return f"answer {self.generation} to {invocation_id}"


class PlainCalls:
    """Makes the calls of a flow's body."""

    def __init__(self, overrides: Overrides, circumstances: Circumstances) -> None:
        self.made: dict[str, PlainCall] = {}
        self._overrides = overrides
        self._circumstances = circumstances
        self._ids = Ids()

    def submit(self, made: Made) -> PlainCall:
        invocation_id = self._ids.give(made.name, made.id)
        replaced = self._overrides.step_inputs.get(invocation_id, {})
        taken = copied({**({"second": None} if made.name == "mix" else {}), **made.inputs, **replaced})
        call = PlainCall(invocation_id, made.name, taken)
        call.after_values = copied(tuple(made.after))
        call.overridden = invocation_id in self._overrides.checkpoints
        call.given = self._overrides.checkpoints.get(invocation_id)
        call.seen = False
        call.position = len(self.made) + 1
        self._execute(call)
        self.made[invocation_id] = call
        return call

    def _execute(self, call: PlainCall) -> None:
        call.execute(self._circumstances.mended)

    def _asks(self, call: PlainCall) -> None:
        """A wait is asked anew in every run."""

    async def wait(self, name: str) -> Any:
        invocation_id = self._ids.give(name, None)
        call = PlainCall(invocation_id, name, {}, is_wait=True, position=len(self.made) + 1)
        waits = sum(one.is_wait for one in self.made.values())
        self._asks(call)
        self.made[invocation_id] = call
        if waits == self._circumstances.answered:
            raise Unanswered
        call.value = self._circumstances.answer(invocation_id)
        return await self.result(call)

    async def call(self, made: Made) -> Any:
        return await self.result(self.submit(made))

    async def together(self, made: Sequence[Made]) -> list[Any]:
        calls = [self.submit(one) for one in made]
        for call in calls:
            await self.settle(call)
        return [call.error if call.error is not None and not call.overridden else received(call) for call in calls]

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        first = INPUT_NAMES[name][0]
        return [self.submit(Made(name, {"salt": salt, first: value})) for salt, value in rows]

    async def result(self, future: PlainCall) -> Any:
        await self.settle(future)
        return received(future)

    async def settle(self, future: PlainCall) -> None:
        future.seen = True

    async def completed(self, futures: Sequence[Any]) -> list[Any]:
        return [await self.result(future) for future in futures]


def run_flow(
    program: Description,
    inputs: Mapping[str, Any],
    overrides: Overrides,
    circumstances: Circumstances | None = None,
    calls: PlainCalls | None = None,
) -> PlainRun:
    """Run the body of a flow."""
    calls = calls or PlainCalls(overrides, circumstances or Circumstances())
    run = PlainRun(calls.made)
    try:
        run.result = interpreted(program, calls, copied({**inputs, **overrides.inputs}))
        for call in [one for one in calls.made.values() if not one.seen]:
            received(call)
    except Unanswered:
        run.waiting = True
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


class PlainGraph:
    """Draws the graph of a pipeline."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str, Mapping[str, Any], list[Any]]] = []
        self._ids = Ids()

    def submit(self, made: Made) -> Any:
        """Add a call, and return what stands for its outputs."""
        invocation_id = self._ids.give(made.name, made.id)
        self.nodes.append((invocation_id, made.name, made.inputs, list(made.after)))
        if made.name == "split":
            return Output(invocation_id, 0), Output(invocation_id, 1)
        return Output(invocation_id)

    async def call(self, made: Made) -> Any:
        return self.submit(made)

    async def result(self, future: Any) -> Any:
        return future

    async def settle(self, future: Any) -> None:
        """There is nothing to wait for."""

    async def together(self, made: Sequence[Made]) -> list[Any]:
        raise NotImplementedError

    async def wait(self, name: str) -> Any:
        raise NotImplementedError

    def map(self, name: str, rows: Sequence[tuple[str, Any]]) -> list[Any]:
        raise NotImplementedError

    async def completed(self, futures: Sequence[Any]) -> list[Any]:
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
    program: Description,
    inputs: Mapping[str, Any],
    overrides: Overrides,
    stale: Mapping[str, PlainCall],
    mended: frozenset[str] = frozenset(),
) -> PlainRun:
    """Run a pipeline; `stale` are calls that are kept though they read an overridden input."""
    values = {**inputs, **overrides.inputs}
    graph = PlainGraph()
    returned = interpreted(program, graph, {name: Read(name) for name in values})
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
            call.execute(mended)
    complete = all(one.state == "completed" for one in run.calls.values())
    run.result = known(returned) if complete else None
    return run
