"""Executions and invocations as the planner sees them. Serialized messages stay bytes: they are stored whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from dalsegno_planner.core.ids import CallId, ExecutionId, InvocationId, Number, call_id

UNLIMITED = 2**31 - 1
"""The number limit of an execution's own entry in its lineage."""

DEFAULT_PROJECT = "default"


class ExecutionKind(StrEnum):
    """What is run."""

    FLOW = "flow"
    PIPELINE = "pipeline"


class ExecutionState(StrEnum):
    """State of an execution."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED)


class InvocationKind(StrEnum):
    """What an invocation is."""

    STEP = "step"
    WAIT = "wait"


class InvocationState(StrEnum):
    """State of an invocation; `ready`, `leased` and `running` are read from the tasks."""

    PENDING = "pending"
    READY = "ready"
    LEASED = "leased"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REUSED = "reused"
    NOT_REACHED = "not_reached"


class WaitState(StrEnum):
    """State of a wait."""

    PENDING = "pending"
    ANSWERED = "answered"
    TIMED_OUT = "timed_out"
    ABORTED = "aborted"


def route(project: str, module: str, name: str, pinned_digest: str = "") -> str:
    """Where a task goes: to executors that announced this code, of any version or of the pinned one."""
    unpinned = f"{project}/{module}:{name}"
    return f"{unpinned}@{pinned_digest}" if pinned_digest else unpinned


@dataclass(frozen=True, slots=True)
class NewExecution:
    """An execution that is about to be created. With an empty name it gets one."""

    id: ExecutionId
    project: str
    name: str
    flow: str
    kind: ExecutionKind
    module: str
    pinned_digest: str = ""
    code_digest: str = ""
    debug: bool = False
    request_id: UUID | None = None
    inputs: bytes = b""
    result_binding: bytes | None = None
    shaping_inputs: tuple[str, ...] = ()
    time_limit: float | None = None
    rank: int = 0

    @property
    def route(self) -> str:
        """The route of a flow's body."""
        return route(self.project, self.module, self.flow, self.pinned_digest)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a recorded execution ended; the bytes are a Payload and a Failure."""

    state: ExecutionState
    result: bytes | None
    failure: bytes | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Execution:
    """One run. `inputs` is a FlowInputs, `result` a Payload, `failure` a Failure, `result_binding` a Binding.

    `time_limit` is in seconds; the `deadline` is that long after the creation, or the last retry. `rank` is its lane
    and priority.
    """

    id: ExecutionId
    project: str
    name: str
    flow: str
    kind: ExecutionKind
    state: ExecutionState
    module: str
    pinned_digest: str
    source_id: ExecutionId | None
    debug: bool
    single_step: bool
    requested_by: str
    invocation_count: int
    last_event: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    inputs: bytes
    result: bytes | None
    failure: bytes | None
    result_binding: bytes | None
    replay: Mapping[str, object] | None
    time_limit: float | None
    deadline: datetime | None
    rank: int


@dataclass(frozen=True, slots=True)
class Invocation:
    """An invocation as an execution sees it: the row of the nearest execution in its lineage that has one.

    `inputs`, `outputs` (what consumers receive), `failure`, `options` and `progress` are serialized messages.
    """

    execution_id: ExecutionId
    supplier_id: ExecutionId
    number: Number
    position: int
    invocation_id: InvocationId
    name: str
    kind: InvocationKind
    state: InvocationState
    module: str
    pinned_digest: str
    code_digest: str
    attempt: int
    stale_inputs: bool
    output_overridden: bool
    started_at: datetime | None
    finished_at: datetime | None
    after: tuple[int, ...]
    overridden_inputs: tuple[str, ...]
    inputs: bytes
    outputs: bytes | None
    failure: bytes | None
    options: bytes
    progress: bytes | None
    recorded_original_id: CallId | None
    """Of an import, which call its record says that it was reused from."""

    @property
    def reused(self) -> bool:
        """Whether an earlier execution supplies the outputs."""
        return self.supplier_id != self.execution_id

    @property
    def call_id(self) -> CallId:
        """The ID of the call that supplies the outputs."""
        return call_id(self.supplier_id, self.number)

    @property
    def original_call_id(self) -> CallId | None:
        """The ID of the call in an earlier execution that it was reused from."""
        return self.call_id if self.reused else self.recorded_original_id


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt; `failure` is a Failure."""

    attempt: int
    executor: str
    started_at: datetime | None
    finished_at: datetime | None
    failure: bytes | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an execution, or with a number above 0 to one of its invocations."""

    event: int
    number: Number
    state: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Wait:
    """A question that an execution asks. `answer` is a Payload."""

    number: Number
    invocation_id: InvocationId
    name: str
    question: str
    schema: str
    state: WaitState
    asked_at: datetime
    deadline: datetime | None
    metadata: str
    answer: bytes | None
    answered_by: str
    answered_at: datetime | None
