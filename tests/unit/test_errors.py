from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import dalsegno
from dalsegno import errors
from dalsegno.errors import (
    DalsegnoError,
    DivergenceError,
    DivergenceKind,
    Failure,
    FailureOrigin,
    Problem,
    UsageError,
    UserCodeError,
)
from dalsegno.states import ExecutionState, InvocationState

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, DalsegnoError)]


def _make(cls: type[DalsegnoError]) -> DalsegnoError:
    kind: dict[str, Any] = {"kind": DivergenceKind.EXTRA_CALL} if issubclass(cls, DivergenceError) else {}
    return cls("it broke", fields={"name": "x"}, problems=[Problem("a", "is bad")], **kind)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_survive_pickling(cls: type[DalsegnoError], again: Callable[[DalsegnoError], DalsegnoError]) -> None:
    error = _make(cls)
    error.add_note("seen by a test")
    other = again(error)
    assert type(other) is cls
    assert (str(other), other.args, other.__dict__) == (str(error), error.args, error.__dict__)


def test_each_class_has_its_own_reason() -> None:
    reasons = [cls.default_reason for cls in ALL]
    assert len(set(reasons)) == len(reasons)
    assert all(reason == reason.upper() for reason in reasons)
    assert UsageError("x").reason == "USAGE"
    assert UsageError("x", reason="UNKNOWN_INPUT").reason == "UNKNOWN_INPUT"


def test_problems_are_lines() -> None:
    error = UsageError("2 problems", problems=[Problem("a[0]", "is bad"), Problem("", "and worse")])
    assert str(error) == "2 problems\n  - a[0]: is bad\n  - and worse"


@pytest.mark.semantics("8", "Errors: DalsegnoError ⊃ UsageError(ValueError), StateError, NotFoundError, ContextError")
def test_tree() -> None:
    parents = {cls.__name__: [one.__name__ for one in cls.__bases__] for cls in ALL}
    assert parents == {
        "DalsegnoError": ["Exception"],
        "UsageError": ["DalsegnoError", "ValueError"],
        "StateError": ["DalsegnoError"],
        "NotFoundError": ["DalsegnoError"],
        "ContextError": ["DalsegnoError"],
        "BackendError": ["DalsegnoError"],
        "AuthError": ["DalsegnoError"],
        "WaitValidationError": ["UsageError"],
        "WaitTimeoutError": ["DalsegnoError", "TimeoutError"],
        "ExecutionError": ["DalsegnoError"],
        "UserCodeError": ["ExecutionError"],
        "DivergenceError": ["ExecutionError"],
    }


@pytest.mark.semantics("8", "importable from dalsegno and dalsegno.errors")
def test_every_error_is_importable_from_both() -> None:
    for cls in ALL:
        assert getattr(dalsegno, cls.__name__) is cls
        assert cls.__name__ in dalsegno.__all__


def test_execution_error_carries_the_failure() -> None:
    failure = Failure(FailureOrigin.USER_CODE, "boom", "ValueError", "Traceback…", "train_2", 1)
    error = pickle.loads(pickle.dumps(UserCodeError("boom", exec_id="42", failure=failure)))
    assert (error.exec_id, error.failure) == ("42", failure)


def test_divergence_kind_is_checked() -> None:
    assert DivergenceError("x", kind="extra_call").kind is DivergenceKind.EXTRA_CALL  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sideways"):
        DivergenceError("x", kind="sideways")  # type: ignore[arg-type]


def test_states() -> None:
    assert {state.value for state in ExecutionState} <= {state.value for state in InvocationState}
    assert ExecutionState.FAILED.finished
    assert not ExecutionState.WAITING.finished
    assert InvocationState.REUSED.finished
    assert not InvocationState.LEASED.finished


def test_errors_import_nothing_heavy() -> None:
    code = "import sys, dalsegno.errors; print({'grpc', 'pydantic', 'asyncio'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"
