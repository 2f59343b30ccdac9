"""The mapping of errors to statuses."""

from __future__ import annotations

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2
from obstore.exceptions import GenericError

from dalsegno import errors
from dalsegno.errors import DivergenceKind, Problem
from dalsegno_planner.rpc.status import as_dalsegno_error, status_of

LIMIT_OF_CLIENTS = 8_192


@pytest.mark.semantics(
    "8", 'Over gRPC each is a status code with google.rpc.ErrorInfo (domain = "dalsegno", a stable reason)'
)
@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (errors.UsageError("x"), grpc.StatusCode.INVALID_ARGUMENT, "BadRequest"),
        (errors.WaitValidationError("x"), grpc.StatusCode.INVALID_ARGUMENT, "BadRequest"),
        (errors.StateError("x"), grpc.StatusCode.FAILED_PRECONDITION, "PreconditionFailure"),
        (errors.ContextError("x"), grpc.StatusCode.FAILED_PRECONDITION, "PreconditionFailure"),
        (errors.NotFoundError("x"), grpc.StatusCode.NOT_FOUND, "ResourceInfo"),
        (errors.AuthError("x"), grpc.StatusCode.UNAUTHENTICATED, None),
        (errors.BackendError("x"), grpc.StatusCode.UNAVAILABLE, None),
        (errors.WaitTimeoutError("x"), grpc.StatusCode.DEADLINE_EXCEEDED, None),
        (errors.UserCodeError("x"), grpc.StatusCode.ABORTED, "PreconditionFailure"),
        (
            errors.DivergenceError("x", kind=DivergenceKind.EXTRA_CALL),
            grpc.StatusCode.ABORTED,
            "PreconditionFailure",
        ),
        (errors.DalsegnoError("x"), grpc.StatusCode.INTERNAL, None),
    ],
)
def test_every_error_has_its_code_reason_and_details(
    error: errors.DalsegnoError, code: grpc.StatusCode, detail: str | None
) -> None:
    status = status_of(error)
    assert status.code == code.value[0]
    info = error_details_pb2.ErrorInfo.FromString(status.details[0].value)
    assert (info.domain, info.reason) == ("dalsegno", error.default_reason)
    names = [packed.TypeName().rpartition(".")[2] for packed in status.details[1:]]
    assert names == ([detail] if detail is not None else [])


def test_problems_are_told_as_far_as_a_client_takes_them() -> None:
    problems = [Problem(f"steps[{at}].inputs.x", "é" * 100) for at in range(500)]
    error = errors.UsageError("x" * 10_000, fields={"a": "y" * 10_000}, problems=problems)
    status = status_of(error)
    sent = len(status.message) + len(status.SerializeToString()) * 4 / 3
    assert LIMIT_OF_CLIENTS / 2 < sent < LIMIT_OF_CLIENTS
    told = error_details_pb2.BadRequest.FromString(status.details[1].value).field_violations
    assert told[0].field == "steps[0].inputs.x"
    assert told[-1].description == f"and {500 - len(told) + 1} more problems"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        FileNotFoundError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.AdminShutdownError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.DeadlockDetectedError(),
        GenericError("no such bucket"),
    ],
)
def test_what_is_out_of_reach_is_unavailable(error: Exception) -> None:
    assert isinstance(as_dalsegno_error(error), errors.BackendError)


def test_a_rollback_that_a_lost_connection_does_not_take_is_no_misuse() -> None:
    """What asyncpg says of it is the same."""
    lost = asyncpg.InternalClientError("cannot switch to state 21; another operation (2) is in progress")
    rollback, release = (asyncpg.InterfaceError("another operation is in progress") for _ in range(2))
    rollback.__context__, release.__context__ = lost, rollback
    assert isinstance(as_dalsegno_error(release), errors.BackendError)


@pytest.mark.parametrize("error", [KeyError("x"), asyncpg.UndefinedColumnError(), asyncpg.InterfaceError("misused")])
def test_what_nobody_foresaw_stays_so(error: Exception) -> None:
    assert as_dalsegno_error(error) is None
