"""Code that several tests of flow bodies run, and what its reports say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dalsegno import flow, step
from dalsegno.payloads import from_payload
from dalsegno.v1.execution_pb2 import Failure
from dalsegno.v1.executor_service_pb2 import Call, Report
from tests.unit.executor_side import body_task, embedded

ran: list[object] = []


@step
def add(a: int, b: int) -> int:
    ran.append((a, b))
    return a + b


@step
def fails(word: str) -> None:
    raise LookupError(word)


@flow
def chain(length: int) -> int:
    value = 0
    for number in range(length):
        value = add(value, number)
    return value


def value_of(report: Report) -> Any:
    """What a body has returned."""
    assert report.WhichOneof("kind") == "returned", report
    return from_payload(report.returned.result, None)


def calls_of(reports: Sequence[Report]) -> list[Call]:
    """The durable calls among reports."""
    return [report.call for report in reports if report.WhichOneof("kind") == "call"]


def failure_of(report: Report) -> Failure:
    """What a body has failed with."""
    assert report.WhichOneof("kind") == "failed", report
    return report.failed.failure


def recording_of(body: Any, *code: Any, **values: Any) -> list[Call]:
    """The calls of one run of a body."""
    with embedded(body, *code) as talk:
        return calls_of(talk.run_body(body_task(body, **values)))
