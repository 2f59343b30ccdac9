"""Gathers what streams report into the rows that one commit takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.dispatch.composites import BodyCall, BodyEnd, FailedAttempt, TaskResult, TaskToken
from dalsegno_planner.dispatch.sessions import Session, Token
from dalsegno_planner.store.bindings import references
from dalsegno_planner.times import moment, seconds

_MOST_REPORTS = 20_000
_MOST_BYTES = 64 << 20
_MOST_BYTES_OF_A_BATCH = 16 << 20
_KINDS = {
    execution_pb2.INVOCATION_KIND_UNSPECIFIED: "step",
    execution_pb2.INVOCATION_KIND_STEP: "step",
    execution_pb2.INVOCATION_KIND_WAIT: "wait",
}


class Reported(NamedTuple):
    """One report, the session that it came from, and what is looked at again and again."""

    session: Session
    report: executor_service_pb2.Report
    token: Token
    kind: str
    size: int

    @classmethod
    def of(cls, session: Session, report: executor_service_pb2.Report) -> Reported:
        """Pair a report with its session."""
        return cls(session, report, Token.of(report.token), report.WhichOneof("kind") or "", report.ByteSize())

    def as_backend_failure(self, message: str) -> Reported | None:
        """Return a failure in place of a report that cannot be recorded, or None where it is such a failure already.

        A call that cannot be recorded fails its body.
        """
        if self.kind == "failed" and self.report.failed.failure.origin == execution_pb2.FAILURE_ORIGIN_BACKEND:
            return None
        failure = execution_pb2.Failure(
            origin=execution_pb2.FAILURE_ORIGIN_BACKEND, message=message.replace("\0", "\\0")
        )
        report = executor_service_pb2.Report(
            report_id=self.report.report_id,
            token=self.report.token,
            failed=executor_service_pb2.TaskFailed(failure=failure),
        )
        return Reported.of(self.session, report)

    @property
    def subject(self) -> tuple[UUID, Token, int | None]:
        """What it is about, and who says so: of one subject only one report counts in a batch."""
        return self.session.id, self.token, self.report.call.number if self.kind == "call" else None

    @property
    def only_begins(self) -> bool:
        """Whether it says that a call has started, which is worth nothing beside what came of it."""
        return self.kind == "call" and self.report.call.HasField("started")

    @property
    def ends_task(self) -> bool:
        """Whether the task of the token has ended, as far as the executor is concerned."""
        return self.kind != "call"


@dataclass(slots=True)
class Batch:
    """The arguments of one commit. The items number the reports."""

    items: list[Reported]
    results: list[TaskResult] = field(default_factory=list)
    calls: list[BodyCall] = field(default_factory=list)
    """In the order in which their executions are locked, and those of one as they were reported."""
    attempts: list[FailedAttempt] = field(default_factory=list)
    ends: list[BodyEnd] = field(default_factory=list)
    returned: list[TaskToken] = field(default_factory=list)
    given_back: Sequence[tuple[Session, Token]] = ()
    superseded: dict[int, int] = field(default_factory=dict)
    """Reports that another one of the same batch makes needless, with that one."""
    soonest: float = math.inf
    """Seconds after which something is to be tried again."""

    @classmethod
    def of(cls, items: list[Reported], returned: Sequence[tuple[Session, Token]] = ()) -> Batch:
        """Convert reports into rows."""
        batch = cls(items, given_back=returned)
        chosen: dict[tuple[UUID, Token, int | None], int] = {}
        subjects = [reported.subject for reported in items]
        for item, subject in enumerate(subjects):
            present = chosen.setdefault(subject, item)
            if present != item and items[present].only_begins:
                chosen[subject] = item
        for item, subject in enumerate(subjects):
            if (counted := chosen[subject]) != item:
                batch.superseded[item] = counted
            else:
                batch._add(item, items[item])
        if len(batch.calls) > 1:
            batch.calls.sort(key=lambda call: call.execution_id)
        batch.returned = [token.of_session(session.id) for session, token in returned]
        return batch

    def __bool__(self) -> bool:
        return bool(self.items or self.returned)

    @property
    def frees_slots(self) -> bool:
        """Whether a task ends that was limited, so that others may begin, in other lanes too."""
        return any(one.session.limited(one.token) for one in self.items)

    @property
    def gives_back(self) -> bool:
        """Whether tasks may go back that have not ended: those of an execution go with its body."""
        return bool(self.returned or self.ends)

    def may_free_work(self) -> bool:
        """Whether something may be ready after the commit that was not before."""
        return bool(self.results or self.returned or any(call.action == "submitted" for call in self.calls))

    def parts(self) -> Iterator[Batch]:
        """Return smaller batches that are this one together, to find what cannot be committed."""
        if self.given_back:
            yield Batch.of([], self.given_back)
        middle = len(self.items) // 2
        for items in (self.items[:middle], self.items[middle:]):
            if items:
                yield Batch.of(items)

    def _add(self, item: int, reported: Reported) -> None:
        """Add a report. One of another kind than its token is for gets no row, so that it is answered `fenced`."""
        is_body = reported.token.number == BODY
        match reported.kind:
            case "call" if is_body:
                self._add_call(item, reported)
            case "completed" | "attempt_failed" | "failed" if not is_body:
                self.results.append(row := _result_row(item, reported))
                if row.delay:
                    self.soonest = min(self.soonest, row.delay)
            case "failed" | "returned" | "suspended" if is_body:
                self.ends.append(_end_row(item, reported))
            case _:
                pass

    def _add_call(self, item: int, reported: Reported) -> None:
        call = reported.report.call
        row = _call_row(item, reported, call)
        self.calls.append(row)
        if row.delay:
            self.soonest = min(self.soonest, row.delay)
        if call.HasField("failed"):
            last = call.failed
            self.attempts.append(
                FailedAttempt(
                    item, reported.token.execution_id, call.number, len(call.failed_attempts) + 1,
                    reported.session.executor, moment(last, "started_at"), moment(last, "finished_at"),
                    last.failure.SerializeToString(),
                )
            )  # fmt: skip
        self.attempts.extend(
            FailedAttempt(
                item, reported.token.execution_id, call.number, attempt.attempt, attempt.executor,
                moment(attempt, "started_at"), moment(attempt, "finished_at"), attempt.failure.SerializeToString(),
            )
            for attempt in call.failed_attempts
        )  # fmt: skip


class Inbox:
    """What was reported and is in no batch yet."""

    def __init__(self) -> None:
        self._reports: list[Reported] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._reports)

    @property
    def fullness(self) -> float:
        """How much of what there is room for is taken: more than 1 where more has come."""
        return max(len(self._reports) / _MOST_REPORTS, self._size / _MOST_BYTES)

    def add(self, reports: Sequence[Reported]) -> None:
        """Take reports in."""
        self._reports.extend(reports)
        self._size += sum(reported.size for reported in reports)

    def take(self, most: int) -> list[Reported]:
        """Remove and return as much as one commit takes: `most` reports, and no more bytes than are sent at once."""
        items = self._reports[:most]
        size = sum(reported.size for reported in items)
        while size > _MOST_BYTES_OF_A_BATCH and len(items) > 1:
            size -= items.pop().size
        del self._reports[: len(items)]
        self._size -= size
        return items


def _result_row(item: int, reported: Reported) -> TaskResult:
    report, token, session = reported.report, reported.token, reported.session
    head = (item, token.execution_id, token.number, token.epoch, session.id)
    match reported.kind:
        case "completed":
            ok = report.completed
            return TaskResult(*head, "completed", ok.outputs.SerializeToString(), None, ok.code_digest,
                              moment(ok, "started_at"), moment(ok, "finished_at"), 0.0, session.executor)  # fmt: skip
        case "failed":
            bad = report.failed
            return TaskResult(*head, "failed", None, bad.failure.SerializeToString(), bad.code_digest,
                              moment(bad, "started_at"), moment(bad, "finished_at"), 0.0, session.executor)  # fmt: skip
        case _:
            attempt = report.attempt_failed.attempt
            delay = seconds(report.attempt_failed.delay)
            return TaskResult(*head, "retry", None, attempt.failure.SerializeToString(), "",
                              moment(attempt, "started_at"), moment(attempt, "finished_at"), delay,
                              session.executor)  # fmt: skip


def _end_row(item: int, reported: Reported) -> BodyEnd:
    report, token = reported.report, reported.token
    head = (item, token.execution_id, token.epoch, reported.session.id)
    match reported.kind:
        case "returned":
            done = report.returned
            return BodyEnd(*head, "returned", done.result.SerializeToString(), None, list(done.not_reached), (),
                           *_yield_columns(done.yields))  # fmt: skip
        case "failed":
            bad = report.failed
            return BodyEnd(*head, "failed", None, bad.failure.SerializeToString(), list(bad.not_reached), (),
                           *_yield_columns(bad.yields))  # fmt: skip
        case _:
            return BodyEnd(*head, "suspended", None, None, waits=list(report.suspended.waits))


def _call_row(item: int, reported: Reported, call: executor_service_pb2.Call) -> BodyCall:
    token = reported.token
    action = call.WhichOneof("action") or "started"
    outputs = failure = started = finished = None
    digest, delay, timeout = "", 0.0, None
    match action:
        case "completed":
            outputs = call.completed.outputs.SerializeToString()
            started, finished = moment(call.completed, "started_at"), moment(call.completed, "finished_at")
            digest = call.completed.code_digest
        case "failed":
            failure = call.failed.failure.SerializeToString()
            started, finished = moment(call.failed, "started_at"), moment(call.failed, "finished_at")
            digest = call.failed.code_digest
        case "submitted":
            digest = call.submitted.code_digest
            delay = seconds(call.submitted.delay)
        case "started":
            started = moment(call.started, "started_at")
        case "wait" if call.wait.HasField("timeout"):
            timeout = seconds(call.wait.timeout)
    attempt = len(call.failed_attempts) + (1 if action in ("completed", "failed") else 0)
    inputs = references(call.inputs)
    taken = inputs.numbers
    after = sorted(set(call.after) - taken)
    return BodyCall(
        item, token.execution_id, token.epoch, reported.session.id, action, call.number, call.position,
        _KINDS[call.kind], call.name, call.invocation_id, call.definition.module, call.definition.pinned_digest, digest,
        call.inputs.SerializeToString(), sorted({*taken, *after}), after, sorted(inputs.flow_inputs),
        call.options.SerializeToString(), outputs, failure, attempt, started, finished, delay,
        call.reused.stale_inputs, call.wait.question, call.wait.schema, call.wait.metadata, timeout,
        *_yield_columns(call.yields),
    )  # fmt: skip


def _yield_columns(yields: Sequence[executor_service_pb2.Yield]) -> tuple[list[int], list[int]]:
    return [one.place for one in yields], [one.number for one in yields]
