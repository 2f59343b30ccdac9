"""What the command line shows of executions, steps, waits and plans, read and ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dalsegno.errors import Failure
from dalsegno.lanes import Lane
from dalsegno.states import ExecutionState, InvocationState
from dalsegno.step_context import Progress


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """One execution.

    Attributes:
        inputs: The inputs by name, as JSON shows them.
        result: What the function returned, as JSON shows it; ``None`` before the end too.
        original_exec_id: For a replay, the execution that it replays.
        original_name: Its name, where that was looked up.
        overridden_inputs: For a replay, the inputs that it changes.
        pending_reason: Why it does not go on where nothing can run it, and what to do.
        deadline: When it ends as failed unless it has ended before.
        warnings: What is to be known of it besides.
    """

    exec_id: str
    name: str
    flow: str
    kind: str
    state: ExecutionState
    project: str = ""
    original_exec_id: str | None = None
    original_name: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    inputs: Mapping[str, object] = field(default_factory=dict)
    result: object = None
    overridden_inputs: tuple[str, ...] = ()
    failure: Failure | None = None
    pending_reason: str | None = None
    warnings: tuple[str, ...] = ()
    step_count: int = 0
    deadline: datetime | None = None
    lane: Lane = Lane.LIVE
    priority: int = 0

    @property
    def seconds(self) -> float | None:
        """How long it took, from its creation to its end; one that is imported was created after both."""
        begun = min((one for one in (self.created_at, self.started_at) if one is not None), default=None)
        return _between(begun, self.finished_at)


@dataclass(frozen=True, slots=True)
class StepView:
    """One call of a step, or one wait.

    Attributes:
        call_id: The call that supplies the outputs.
        upstream: Invocation IDs that it takes something from, or comes after.
        output_overridden: Whether a replay replaced its output.
        stale_inputs: Whether it was reused although its inputs would be others now.
        progress: How far it had come when that was last heard of.
    """

    invocation_id: str
    name: str
    state: InvocationState
    is_wait: bool = False
    call_id: str = ""
    original_call_id: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    upstream: tuple[str, ...] = ()
    output_overridden: bool = False
    overridden_inputs: tuple[str, ...] = ()
    stale_inputs: bool = False
    attempt: int = 1
    failure: Failure | None = None
    progress: Progress | None = None

    @property
    def seconds(self) -> float | None:
        """How long its last attempt took."""
        return _between(self.started_at, self.finished_at)


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One failed attempt of a call."""

    attempt: int
    failure: Failure
    executor: str
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return _between(self.started_at, self.finished_at)


@dataclass(frozen=True, slots=True)
class OutputView:
    """One output of a call, with the ID under which it can be given to a replay."""

    name: str
    artifact_id: str
    codec: str
    size: int
    value: object


@dataclass(frozen=True, slots=True)
class CallView:
    """One call of a step with what it returned, and its failed attempts in this execution."""

    step: StepView
    outputs: tuple[OutputView, ...] = ()
    failed_attempts: tuple[AttemptView, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitView:
    """A question that an execution asks."""

    name: str
    state: str
    question: str | None = None
    schema: Mapping[str, object] | None = None
    asked_at: datetime | None = None
    deadline: datetime | None = None


class Fate(StrEnum):
    """What a replay does with an invocation."""

    ROOT = "root"
    DOWNSTREAM = "downstream"
    REUSED = "reused"


@dataclass(frozen=True, slots=True)
class PlannedView:
    """One invocation in a plan.

    Attributes:
        reasons: Why it is a root, in words.
        call_id: For a reused one, the call that its outputs come from.
        seconds: How long it took when it was recorded; ``None`` where that is not known.
    """

    number: int
    invocation_id: str
    name: str
    fate: Fate
    is_wait: bool = False
    reasons: tuple[str, ...] = ()
    call_id: str | None = None
    seconds: float | None = None
    output_overridden: bool = False


@dataclass(frozen=True, slots=True)
class PlanView:
    """What a replay would do.

    Attributes:
        steps: By number; the first ones only, where there are very many.
        waits: Names of waits that will be asked again.
    """

    digest: str
    source: str
    affected_count: int
    reused_count: int
    steps: tuple[PlannedView, ...]
    waits: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether `steps` has all of them."""
        return len(self.steps) == self.affected_count + self.reused_count

    @property
    def seconds_saved(self) -> float:
        """How long what is reused took when it was recorded; a lower bound where the plan is not complete."""
        return sum(step.seconds or 0.0 for step in self.steps if step.fate is Fate.REUSED)


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start is not None and end is not None else None
