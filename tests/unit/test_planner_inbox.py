"""What streams report and no commit has taken yet."""

from __future__ import annotations

from uuid import UUID

from dalsegno.v1.executor_service_pb2 import Report, StepCompleted, TaskToken
from dalsegno_planner.dispatch.batch import Inbox, Reported
from dalsegno_planner.dispatch.sessions import Session

SESSION = Session(UUID(int=1), "worker", "default", False, 1, set())
MEBIBYTE = 1 << 20


def reported(number: int, size: int = 0) -> Reported:
    token = TaskToken(execution_id=16 * b"e", number=number, epoch=1)
    return Reported.of(SESSION, Report(token=token, completed=StepCompleted(code_digest=size * "x")))


def numbers(reports: list[Reported]) -> list[int]:
    return [one.token.number for one in reports]


def test_what_came_first_is_taken_first_and_no_more_than_is_asked_for() -> None:
    inbox = Inbox()
    inbox.add([reported(number) for number in range(5)])
    assert numbers(inbox.take(3)) == [0, 1, 2]
    assert numbers(inbox.take(3)) == [3, 4]
    assert not inbox


def test_one_commit_takes_no_more_bytes_than_are_sent_at_once() -> None:
    """Otherwise 512 results of 64 KiB and more would be in one statement, here and in Postgres."""
    inbox = Inbox()
    inbox.add([reported(number, 6 * MEBIBYTE) for number in range(5)])
    assert [numbers(inbox.take(512)) for _ in range(3)] == [[0, 1], [2, 3], [4]]


def test_a_report_that_is_larger_than_that_goes_alone() -> None:
    inbox = Inbox()
    inbox.add([reported(0, 17 * MEBIBYTE), reported(1)])
    assert [numbers(inbox.take(512)) for _ in range(2)] == [[0], [1]]


def test_it_is_full_of_many_reports_as_of_large_ones_until_they_are_taken() -> None:
    many, large = Inbox(), Inbox()
    many.add(20_001 * [reported(1)])
    large.add(5 * [reported(1, 13 * MEBIBYTE)])
    for inbox in (many, large):
        assert inbox.fullness > 1
        while inbox:
            inbox.take(512)
        assert inbox.fullness == 0
