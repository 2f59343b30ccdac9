"""Every error that Dal Segno raises.

::

    DalsegnoError
    ├── UsageError (ValueError)          the request itself is wrong
    │   └── WaitValidationError          an answer does not fit its wait; the wait stays open
    ├── StateError                       right request, wrong moment or ambiguous target
    ├── NotFoundError                    no such execution, invocation, artifact or wait
    ├── ContextError                     a call in a place where it cannot work
    ├── BackendError                     planner or Postgres unreachable, or at fault
    ├── AuthError                        not allowed
    ├── WaitTimeoutError (TimeoutError)  a wait's deadline passed without an answer
    └── ExecutionError                   the execution ended without a result
        ├── UserCodeError                raised by the code of a flow or step
        └── DivergenceError              the body did not repeat what was recorded

All of them can be pickled, and carry a stable ``reason`` and ``fields`` for programs to tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

__all__ = [
    "AuthError",
    "BackendError",
    "ContextError",
    "DalsegnoError",
    "Divergence",
    "DivergenceError",
    "DivergenceKind",
    "DivergentCall",
    "ExecutionError",
    "Failure",
    "FailureOrigin",
    "NotFoundError",
    "Problem",
    "StateError",
    "UsageError",
    "UserCodeError",
    "WaitTimeoutError",
    "WaitValidationError",
]


class FailureOrigin(StrEnum):
    """Where a failure was raised, decided by the place and never by the message."""

    USER_CODE = "user_code"
    RUNTIME = "runtime"
    BACKEND = "backend"
    DIVERGENCE = "divergence"
    UNKNOWN = "unknown"


class DivergenceKind(StrEnum):
    """How a body departed from the recorded sequence of durable calls."""

    REORDERED_CALL = "reordered_call"
    """What came is recorded later."""
    RENAMED_CALL = "renamed_call"
    """Not recorded, but with the expected call's inputs."""
    EXTRA_CALL = "extra_call"
    """Not recorded otherwise."""
    MISSING_CALL = "missing_call"
    """The body ended before a reused call."""
    ROOT_NOT_REACHED = "root_not_reached"
    """The body ended with only affected calls left."""
    INPUT_CHANGED = "input_changed"
    """The same call with other inputs, though nothing new was received."""
    GRAPH_CHANGED = "graph_changed"
    """The code declares another graph or other arguments than were recorded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request; ``field`` is a path such as ``overrides["checkpoint.fit"]``."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


@dataclass(frozen=True, slots=True)
class DivergentCall:
    """One side of a divergence.

    Attributes:
        invocation_id: Its readable ID.
        name: The name of the step or wait.
        is_wait: Whether it is a wait.
        position: Where it is recorded in the durable call sequence, from 1; ``None`` where it is not.
        digests: Those of its inputs, by name.
    """

    invocation_id: str
    name: str
    is_wait: bool = False
    position: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where and how a body departed from what is recorded.

    Attributes:
        position: The place in the durable call sequence, from 1; ``None`` where no single call is meant.
        expected: The recorded call; ``None`` where nothing more is recorded.
        actual: The call that came; ``None`` where the body ended.
        inputs: The inputs that differ, or the overridden flow inputs that may have caused it.
        before: The last calls before it, which were made as they are recorded.
        following: The recorded calls next after the expected one.
    """

    kind: DivergenceKind
    position: int | None = None
    expected: DivergentCall | None = None
    actual: DivergentCall | None = None
    inputs: tuple[str, ...] = ()
    before: tuple[DivergentCall, ...] = ()
    following: tuple[DivergentCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an execution or invocation failed; ``traceback`` is the full text, ``divergence`` that of a body's."""

    origin: FailureOrigin
    message: str
    exception_type: str | None = None
    traceback: str | None = None
    invocation_id: str | None = None
    attempt: int | None = None
    divergence: Divergence | None = None
    reason: str | None = None
    """A stable name of the case where there is one, such as ``STEP_TIMEOUT`` or ``PROCESS_DIED``."""


class DalsegnoError(Exception):
    """Root of the tree.

    Args:
        message: What was wrong, where, what was expected and what to do.
        reason: Stable upper-snake name of the case; the class's own where none is given.
        fields: Names and values that the message mentions, for programs.
        problems: Everything that is wrong with the request, shown one a line after the message.
    """

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        fields: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.fields: Mapping[str, str] = dict(fields or {})
        self.problems: tuple[Problem, ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args), self.__dict__

    @classmethod
    def _bare(cls, args: tuple[object, ...]) -> Self:
        error = cls.__new__(cls, *args)
        error.args = args
        return error


def _restore(cls: type[DalsegnoError], args: tuple[object, ...]) -> DalsegnoError:
    return cls._bare(args)


class UsageError(DalsegnoError, ValueError):
    """The request is wrong whatever the state: an unknown key, a value of a wrong type, two that disagree."""

    default_reason = "USAGE"


class StateError(DalsegnoError):
    """The request does not fit the present state: an ambiguous selector, a running source, a stale plan."""

    default_reason = "STATE"


class NotFoundError(DalsegnoError):
    """Nothing has the given ID or name."""

    default_reason = "NOT_FOUND"


class ContextError(DalsegnoError):
    """The call cannot work here, such as ``wait()`` outside a flow or a flow inside a step."""

    default_reason = "CONTEXT"


class BackendError(DalsegnoError):
    """The planner, the database or the object store cannot be reached, or failed."""

    default_reason = "BACKEND"


class AuthError(DalsegnoError):
    """The caller is not known, or not allowed to do this."""

    default_reason = "AUTH"


class WaitValidationError(UsageError):
    """An answer does not fit the schema of its wait, which stays open."""

    default_reason = "WAIT_VALIDATION"


class WaitTimeoutError(DalsegnoError, TimeoutError):
    """The deadline of a wait passed without an answer; ``except TimeoutError`` catches it too."""

    default_reason = "WAIT_TIMEOUT"


class ExecutionError(DalsegnoError):
    """An execution ended without a result; ``exec_id`` and ``failure`` say which and why."""

    default_reason = "EXECUTION_FAILED"

    def __init__(
        self,
        message: str,
        *,
        exec_id: str | None = None,
        failure: Failure | None = None,
        reason: str | None = None,
        fields: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message, reason=reason, fields=fields, problems=problems)
        self.exec_id = exec_id
        self.failure = failure


class UserCodeError(ExecutionError):
    """A flow or step raised; ``failure`` has the original type, message and traceback."""

    default_reason = "USER_CODE"


class DivergenceError(ExecutionError):
    """A body did not repeat what was recorded.

    Args:
        message: What was expected, what came, and what to do.
        kind: In which way it differs.
        position: The place in the durable call sequence, from 1; ``None`` where no single call is meant.
        expected: The recorded call or declaration.
        actual: What came instead.
        digests: The digests that differ, by name (such as ``expected.topic``, ``actual.topic``).
    """

    default_reason = "DIVERGENCE"

    def __init__(
        self,
        message: str,
        *,
        kind: DivergenceKind,
        position: int | None = None,
        expected: str | None = None,
        actual: str | None = None,
        digests: Mapping[str, str] | None = None,
        exec_id: str | None = None,
        failure: Failure | None = None,
        reason: str | None = None,
        fields: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message, exec_id=exec_id, failure=failure, reason=reason, fields=fields, problems=problems)
        self.kind = DivergenceKind(kind)
        self.position = position
        self.expected = expected
        self.actual = actual
        self.digests: Mapping[str, str] = dict(digests or {})
