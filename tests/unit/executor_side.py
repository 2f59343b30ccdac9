"""The stream process's part in a conversation with a runner, played by a test over a real socket pair."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dalsegno.decorators import Decorated, Flow, Step
from dalsegno.definitions import definition_ref, step_options
from dalsegno.payloads import inline_payload
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_DURABLE,
    RECORDED_CALL_ACTION_REUSE,
    Ack,
    Acks,
    AckStatus,
    BodyTask,
    Call,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    RecordedCall,
    RecordedCalls,
    ReplayRules,
    Report,
    Resolved,
    ResolvedCall,
    StepTask,
    Task,
    Tasks,
    TaskToken,
)
from dalsegno.v1.value_pb2 import Binding, FlowInputs, Inputs, Output, Outputs, Payload
from dalsegno.values import encode
from dalsegno_executor.framing import FrameReader, frame
from dalsegno_executor.runner.embedded import EmbeddedRunner

SECONDS = 20.0
"""How long a test waits for a message before it gives up."""


def payload(value: object) -> Payload:
    """A value inline."""
    return inline_payload(encode(value))


def outputs(value: object, name: str = "output") -> Outputs:
    """One output."""
    return Outputs(outputs=[Output(name=name, payload=payload(value))])


def inputs(**values: object) -> Inputs:
    """Plain inputs."""
    return Inputs(bindings={name: Binding(value=payload(value)) for name, value in values.items()})


def step_task(step: Step[..., Any], number: int = 1, *, attempt: int = 1, **values: object) -> Task:
    """The task of a step with plain inputs."""
    return Task(
        token=TaskToken(execution_id=b"e" * 16, number=number, epoch=1),
        definition=definition_ref(step, pinned=False),
        step=StepTask(
            invocation_id=step.name,
            inputs=inputs(**values),
            options=step_options(step.options),
            attempt=attempt,
        ),
    )


def body_task(
    flow: Flow[..., Any],
    recorded: Iterable[RecordedCall] = (),
    *,
    replay: ReplayRules | None = None,
    epoch: int = 1,
    **values: object,
) -> Task:
    """The task of a flow's body."""
    calls = list(recorded)
    return Task(
        token=TaskToken(execution_id=b"f" * 16, number=0, epoch=epoch),
        definition=definition_ref(flow, pinned=False),
        body=BodyTask(
            inputs=FlowInputs(values={name: payload(value) for name, value in values.items()}),
            recorded=RecordedCalls(calls=calls),
            next_number=max((call.number for call in calls), default=0) + 1,
            replay=replay,
        ),
    )


def as_recorded(call: Call, **fields: Any) -> RecordedCall:
    """What a planner sends of a call that was reported to it."""
    recorded = RecordedCall(
        number=call.number,
        position=call.position,
        kind=call.kind,
        name=call.name,
        invocation_id=call.invocation_id,
        action=RECORDED_CALL_ACTION_REUSE,
        inputs=call.inputs,
        own=True,
    )
    if call.HasField("completed"):
        recorded.outputs.CopyFrom(call.completed.outputs)
    if call.HasField("failed"):
        recorded.failure.CopyFrom(call.failed.failure)
    recorded.MergeFrom(RecordedCall(**fields))
    return recorded


class RunnerTalk:
    """Talks with a runner through a socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        self._socket = sock
        self._reader = FrameReader()
        self._messages: deque[ExecutorServiceWorkRequest] = deque()
        self._reports: deque[Report] = deque()

    def tell(self, **message: Any) -> None:
        """Send a message."""
        self._socket.sendall(frame(ExecutorServiceWorkResponse(**message)))

    def give(self, *tasks: Task) -> None:
        """Send tasks."""
        self.tell(tasks=Tasks(tasks=tasks))

    def message(self) -> ExecutorServiceWorkRequest:
        """Return the next message."""
        while not self._messages:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._messages.extend(map(ExecutorServiceWorkRequest.FromString, self._reader.feed(data)))
        return self._messages.popleft()

    def expect(self, kind: str) -> ExecutorServiceWorkRequest:
        """Return the next message, which has to be of this kind."""
        message = self.message()
        assert message.WhichOneof("message") == kind, message
        return message

    def report(self) -> Report:
        """Return the next report that is for the planner."""
        while True:
            while not self._reports:
                self._reports.extend(self.expect("reports").reports.reports)
            report = self._reports.popleft()
            if report.report_id or report.WhichOneof("kind") != "call":
                return report

    def begun(self) -> Report:
        """Return the next report, one that says which call begins, included."""
        while not self._reports:
            self._reports.extend(self.expect("reports").reports.reports)
        return self._reports.popleft()

    def ack(self, report: Report, status: AckStatus.ValueType = ACK_STATUS_DURABLE) -> None:
        """Answer a report."""
        self.tell(acks=Acks(acks=[Ack(report_id=report.report_id, status=status, reason="told so")]))

    def resolve(self, body: TaskToken, number: int, value: object) -> None:
        """Send the outcome of a submitted call."""
        self.tell(resolved=Resolved(calls=[ResolvedCall(body=body, number=number, outputs=outputs(value))]))

    def run_body(self, task: Task, answers: Mapping[str, Callable[[Call], object]] | None = None) -> list[Report]:
        """Give a body and play the planner until it ends; return all its reports.

        Args:
            task: The body.
            answers: The values of submitted calls, by invocation ID.
        """
        self.give(task)
        reports = [self.report()]
        while reports[-1].WhichOneof("kind") == "call":
            report = reports[-1]
            self.ack(report)
            if report.call.HasField("submitted") and answers:
                value = answers[report.call.invocation_id](report.call)
                self.resolve(task.token, report.call.number, value)
            reports.append(self.report())
        return reports


@contextmanager
def embedded(*definitions: Decorated[..., Any], step_threads: int = 1) -> Iterator[RunnerTalk]:
    """A runner in this process that has announced some code."""
    ours, theirs = socket.socketpair()
    runner = EmbeddedRunner(theirs, step_threads=step_threads, body_threads=4)
    with ours:
        runner.start()
        talk = RunnerTalk(ours)
        credit = talk.expect("credit").credit
        assert (credit.steps, credit.bodies) == (step_threads, 4)
        runner.announce(definitions)
        announced = talk.expect("announce").announce.definitions
        assert {one.name for one in announced} == {one.name for one in definitions}
        yield talk
    runner.close()
    assert runner.closed.wait(SECONDS)
