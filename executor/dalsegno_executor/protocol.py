"""The session of an executor with its planner, without I/O.

It is told what arrives and what runners say, and asked what to send next. It holds what must survive a reconnect: the
tasks in hand, and every report that the planner has not called durable.

::

              connect()            welcome
    CLOSED ─────────────► GREETING ────────► OPEN
       ▲                      │               │
       └──────────────────────┴───────────────┘  disconnect()
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dalsegno.v1.definition_pb2 import Definition
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_BACKEND, Failure
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_FENCED,
    ACK_STATUS_REJECTED,
    Accepted,
    Ack,
    Announce,
    Awaiting,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    Heartbeat,
    Hello,
    Report,
    ResolvedCall,
    Returned,
    StepProgress,
    Task,
    TaskFailed,
    Welcome,
    WrittenLine,
)
from dalsegno_executor.credit import AllSlots
from dalsegno_executor.events import (
    NO_RUNNER,
    Deliver,
    DrainAsked,
    Event,
    Resolve,
    RunnerId,
    Settled,
    Stop,
    Welcomed,
)
from dalsegno_executor.held import Held
from dalsegno_executor.log_lines import LogQueue
from dalsegno_executor.open_reports import OpenReport, OpenReports
from dalsegno_executor.outbox import Outbox
from dalsegno_executor.tokens import BODY, TaskKey, ends_task, key_of, token_of

PROTOCOL_VERSION = 1


class State(StrEnum):
    """Where the stream stands."""

    CLOSED = "closed"
    GREETING = "greeting"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an executor is; the session key stays the same for as long as the process lives."""

    session_key: bytes
    executor: str
    project: str
    pinned_only: bool = False


class Session:
    """The state of one executor's session."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.state = State.CLOSED
        self.draining = False
        self._definitions: dict[tuple[int, str, str, str], Definition] = {}
        self._held: dict[TaskKey, Held] = {}
        self._open = OpenReports()
        self._log = LogQueue()
        # The last report of which all that was written before is sent.
        self._written_through = 0
        self._slots = AllSlots()
        self._credit_with_reports = False
        self._outbox = Outbox()

    # The connection.

    def connect(self) -> ExecutorServiceWorkRequest:
        """Start a stream, and return its first message."""
        self.state = State.GREETING
        self._outbox = Outbox()
        return ExecutorServiceWorkRequest(
            hello=Hello(
                session_key=self.identity.session_key,
                executor=self.identity.executor,
                project=self.identity.project,
                definitions=self._definitions.values(),
                in_hand=[token_of(key) for key, held in self._held.items() if held.whole],
                protocol_version=PROTOCOL_VERSION,
                pinned_only=self.identity.pinned_only,
                awaiting=[
                    Awaiting(body=token_of(key), numbers=sorted(held.awaiting))
                    for key, held in self._held.items()
                    if held.awaiting and held.whole
                ],
                acks_with_tasks=True,
            )
        )

    def disconnect(self) -> None:
        """Note that the stream has ended, for whatever reason."""
        self.state = State.CLOSED

    def receive(self, response: ExecutorServiceWorkResponse) -> list[Event]:
        """Take a message of the planner, and return what follows from it."""
        match response.WhichOneof("message"):
            case "welcome":
                return self._welcome(response.welcome)
            case "tasks":
                return [*self._acks(response.tasks.acks), *self._tasks(response.tasks.tasks)]
            case "acks":
                return self._acks(response.acks.acks)
            case "resolved":
                return self._resolved(response.resolved.calls)
            case "cancel":
                return self._drop([key_of(token) for token in response.cancel.tokens], response.cancel.reason)
            case "drain":
                return [DrainAsked(response.drain.reason)]
            case _:  # of a later version of the protocol
                return []

    @property
    def has_something_to_send(self) -> bool:
        """Whether there may be a next message."""
        if self.state is not State.OPEN:
            return False
        has_credit = self._slots.changed and not self.draining
        return has_credit or self._open.has_unsent or bool(self._outbox) or bool(self._log)

    def next_message(self) -> ExecutorServiceWorkRequest | None:
        """Return what to send now, if anything.

        Credit goes with reports, or before them: a report makes work ready that the credit is for. Lines of the log go
        before the reports that came after them: whoever sees that something has ended finds what it has written.
        """
        if self.state is not State.OPEN:
            return None
        outbox = self._outbox
        if outbox.announced:
            announced, outbox.announced = outbox.announced, []
            return ExecutorServiceWorkRequest(announce=Announce(definitions=announced))
        if outbox.accepted:
            accepted, outbox.accepted = outbox.accepted, []
            return ExecutorServiceWorkRequest(accepted=Accepted(tokens=accepted))
        if outbox.returned:
            returned, outbox.returned = outbox.returned, []
            return ExecutorServiceWorkRequest(returned=Returned(tokens=returned))
        if outbox.heartbeat is not None:  # the lease is not to wait until there is nothing to report
            return ExecutorServiceWorkRequest(heartbeat=outbox.take_heartbeat(self.holds))
        reports = self._next_reports() if self._credit_with_reports else None
        credit = None if self.draining else self._slots.take_offers()
        if credit is not None and reports is None:
            return ExecutorServiceWorkRequest(credit=credit)
        reports = reports or self._next_reports()
        if reports is not None:
            if credit is not None:
                reports.reports.credit.CopyFrom(credit)
            return reports
        if self._log:
            self._written_through = self._open.last_id
            return ExecutorServiceWorkRequest(log_lines=self._log.take())
        return None

    def _next_reports(self) -> ExecutorServiceWorkRequest | None:
        return self._open.take(self._written_through if self._log else self._open.last_id)

    # What the runners say.

    def announce(self, definitions: Iterable[Definition]) -> None:
        """Add to the code that this executor has."""
        for definition in definitions:
            key = (definition.kind, definition.module, definition.name, definition.digest)
            if key not in self._definitions:
                self._definitions[key] = definition
                if self.state is not State.CLOSED:
                    self._outbox.announced.append(definition)

    def report(self, report: Report, runner: RunnerId = NO_RUNNER) -> bool:
        """Take a report; its `report_id` is the runner's own for it, 0 where the runner needs no answer.

        Returns:
            Whether the task is still in hand. Where it is not, the report is dropped.
        """
        key = key_of(report.token)
        held = self._held.get(key)
        if held is None or held.ended or held.leaving:
            return False
        ends = ends_task(report)
        if ends:
            held.ended = True
            self._slots.free(held.slots)
        if key[1] == BODY and report.call.HasField("submitted"):
            held.awaiting.add(report.call.number)
        held.open_reports += 1
        self._open.add(OpenReport(report, key, runner, report.report_id, ends, held.live))
        return True

    def write(self, lines: Iterable[WrittenLine]) -> None:
        """Take what user code has written; it is sent once, and what there is no room for is left out."""
        self._log.add(lines)

    def give_back(self, keys: Iterable[TaskKey]) -> None:
        """Hand tasks back unfinished; a body goes once what it has reported is durable."""
        for key in keys:
            held = self._held.get(key)
            if held is None or held.ended or held.leaving:
                continue
            held.leaving = True
            self._slots.free(held.slots)
            self._return_if_settled(key, held)

    def offer(self, steps: int, bodies: int, *, live_steps: int = 0, live_bodies: int = 0) -> None:
        """Say how many tasks of each kind may be in hand at once; besides, how many that are live."""
        self._slots.aim_at(steps, bodies, live_steps, live_bodies)

    def accept_arrived(self) -> None:
        """Accept the tasks that have come since this was asked last; to be asked often, for the planner waits for it.

        Most short ones need no such message: that they have ended is durable by then.
        """
        arrived, self._outbox.arrived = self._outbox.arrived, []
        self._outbox.accepted.extend(token_of(key) for key in arrived if key in self._held)

    def alive(self, running: Iterable[TaskKey] = ()) -> None:
        """Say so to the planner, with the tasks that have started since."""
        heartbeat = self._outbox.heartbeat or Heartbeat()
        heartbeat.running.extend(token_of(key) for key in running if key in self._held)
        self._outbox.heartbeat = heartbeat

    def progressed(self, progress: Iterable[StepProgress]) -> None:
        """Take how far calls have come; of each the latest goes with the next heartbeat."""
        for said in progress:
            self._outbox.progress[key_of(said.token), said.number] = said

    def drain(self) -> None:
        """Take nothing more."""
        self.draining = True

    @property
    def settled(self) -> bool:
        """Whether nothing is in hand and nothing waits to be sent or acknowledged."""
        return not (self._held or self._open or self._outbox.returned)

    @property
    def definitions(self) -> Sequence[Definition]:
        """The code that this executor has."""
        return tuple(self._definitions.values())

    def holds(self, key: TaskKey) -> bool:
        """Return whether a task is in hand and not ended."""
        held = self._held.get(key)
        return held is not None and not held.ended and not held.leaving

    # How messages are taken.

    def _welcome(self, welcome: Welcome) -> list[Event]:
        self.state = State.OPEN
        self._slots.begin_anew(can_withdraw=welcome.credit_instead)
        self._credit_with_reports = welcome.credit_with_reports
        self._open.begin_anew()
        lost = self._drop([key_of(token) for token in welcome.lost], "the task was given to another executor")
        # Nobody sends the rest of what an earlier stream has brought a part of.
        parts = self._drop([key for key, held in self._held.items() if not held.whole], "it has not come whole")
        # The order matters: credit is offered once it is known which tasks are gone.
        return [*lost, *parts, Welcomed(welcome)]

    def _tasks(self, tasks: Sequence[Task]) -> list[Event]:
        delivered = []
        for task in tasks:
            key = key_of(task.token)
            is_body = key[1] == BODY
            if is_body and task.HasField("recorded"):
                if self.holds(key):
                    self._held[key].add(task.recorded)
                    delivered.append(task)
                continue
            slots = self._slots.receive(task)
            if self.draining:
                self._outbox.returned.append(task.token)
            elif key not in self._held:
                self._held[key] = Held.of(task, slots)
                slots.in_hand += 1
                self._outbox.arrived.append(key)
                delivered.append(task)
        return [Deliver(delivered)] if delivered else []

    def _resolved(self, calls: Sequence[ResolvedCall]) -> list[Event]:
        for call in calls:
            held = self._held.get(key_of(call.body))
            if held is not None:
                held.awaiting.discard(call.number)
        return [Resolve(calls)]

    def _acks(self, acks: Sequence[Ack]) -> list[Event]:
        answers: dict[RunnerId, list[Ack]] = {}
        fenced: list[TaskKey] = []
        for ack in acks:
            opened = self._open.get(ack.report_id)
            if opened is None:
                continue
            if ack.status == ACK_STATUS_REJECTED and opened.ends and not opened.replaced:
                self._replace_rejected(opened, ack.reason)
                continue
            self._open.close(ack.report_id)
            self._close_report(opened)
            if ack.status == ACK_STATUS_FENCED:
                fenced.append(opened.key)
            if opened.runner_report_id:
                ack.report_id = opened.runner_report_id
                answers.setdefault(opened.runner, []).append(ack)
        events: list[Event] = [Settled(runner, settled) for runner, settled in answers.items()]
        return events + (self._drop(fenced, "the task was given to another executor") if fenced else [])

    def _close_report(self, opened: OpenReport) -> None:
        held = self._held.get(opened.key)
        if held is None:
            return
        held.open_reports -= 1
        if opened.ends:
            del self._held[opened.key]
        else:
            self._return_if_settled(opened.key, held)

    def _replace_rejected(self, opened: OpenReport, reason: str) -> None:
        """Report a failure in the place of a result that the planner cannot record."""
        failure = Failure(
            origin=FAILURE_ORIGIN_BACKEND,
            message=f"the planner could not record the result: {reason}",
            exception_type="dalsegno.errors:BackendError",
        )
        self._open.close(opened.report.report_id)
        opened.report = Report(token=opened.report.token, failed=TaskFailed(failure=failure))
        opened.replaced = True
        self._open.add(opened)

    def _drop(self, keys: Sequence[TaskKey], reason: str) -> list[Event]:
        """Forget tasks. Their open reports stay: they may have been recorded, and the planner answers each."""
        stopped = []
        for key in keys:
            held = self._held.pop(key, None)
            if held is None or held.ended:
                continue
            if not held.leaving:
                self._slots.free(held.slots)
                stopped.append(key)
        return [Stop(stopped, reason)] if stopped else []

    def _return_if_settled(self, key: TaskKey, held: Held) -> None:
        if held.leaving and not held.open_reports:
            del self._held[key]
            self._outbox.returned.append(token_of(key))
