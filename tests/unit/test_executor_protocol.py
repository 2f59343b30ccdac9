"""The session of an executor, without a socket: what it sends after what it was told."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.v1.definition_pb2 import DEFINITION_KIND_STEP, Definition
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_BACKEND, LANE_BULK
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_DURABLE,
    ACK_STATUS_FENCED,
    ACK_STATUS_REJECTED,
    RECORDED_CALL_ACTION_AWAIT,
    RECORDED_CALL_ACTION_REUSE,
    Ack,
    Acks,
    AckStatus,
    BodyTask,
    Call,
    CallSubmitted,
    Cancel,
    Credit,
    Drain,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    RecordedCall,
    RecordedCalls,
    Report,
    Resolved,
    ResolvedCall,
    StepCompleted,
    StepTask,
    Task,
    Tasks,
    TaskToken,
    Welcome,
    WrittenLine,
)
from dalsegno_executor.events import Deliver, DrainAsked, Event, RunnerId, Settled, Stop
from dalsegno_executor.protocol import Identity, Session, State
from dalsegno_executor.tokens import key_of

RUNNER = RunnerId(7)


def token(number: int, epoch: int = 1) -> TaskToken:
    return TaskToken(execution_id=b"e" * 16, number=number, epoch=epoch)


def step(number: int) -> Task:
    return Task(token=token(number), step=StepTask())


def body() -> Task:
    return Task(token=token(0), body=BodyTask())


def body_that_goes_on() -> Task:
    return Task(token=token(0), body=BodyTask(recorded=RecordedCalls(more=True)))


def completed(number: int, runner_report_id: int = 0) -> Report:
    return Report(report_id=runner_report_id, token=token(number), completed=StepCompleted())


def called(runner_report_id: int = 0) -> Report:
    return Report(report_id=runner_report_id, token=token(0), call=Call(number=1))


class Conversation:
    """A session that is connected, and the messages that it sends."""

    def __init__(self, steps: int = 4, bodies: int = 2) -> None:
        self.session = Session(Identity(b"k" * 16, "host:1", "demo"))
        self.session.announce([Definition(kind=DEFINITION_KIND_STEP, module="m", name="a", digest="1")])
        self.session.offer(steps, bodies)
        self.connect()

    def connect(self, *lost: TaskToken) -> ExecutorServiceWorkRequest:
        hello = self.session.connect()
        self.events = self.tell(welcome=Welcome(lost=lost))
        return hello

    def tell(self, **message: Any) -> list[Event]:
        return self.session.receive(ExecutorServiceWorkResponse(**message))

    def give(self, *tasks: Task) -> list[Event]:
        return self.tell(tasks=Tasks(tasks=tasks))

    def ack(self, status: AckStatus.ValueType, *report_ids: int) -> list[Event]:
        return self.tell(acks=Acks(acks=[Ack(report_id=one, status=status) for one in report_ids]))

    def sent(self) -> list[ExecutorServiceWorkRequest]:
        messages = []
        while (message := self.session.next_message()) is not None:
            messages.append(message)
        return messages

    def sent_reports(self) -> list[Report]:
        return [report for message in self.sent() for report in message.reports.reports]


def kinds(messages: list[ExecutorServiceWorkRequest]) -> list[str]:
    return [message.WhichOneof("message") or "" for message in messages]


def test_nothing_is_sent_before_the_welcome() -> None:
    session = Session(Identity(b"k" * 16, "host:1", "demo"))
    session.offer(1, 1)
    session.alive()
    hello = session.connect().hello
    assert (hello.session_key, hello.project, hello.protocol_version) == (b"k" * 16, "demo", 1)
    assert session.state is State.GREETING
    assert session.next_message() is None


def test_credit_is_what_is_free_and_is_offered_once() -> None:
    talk = Conversation()
    [message] = talk.sent()
    assert (message.credit.steps, message.credit.bodies) == (4, 2)
    assert talk.sent() == []
    talk.give(step(1), step(2), body())
    assert talk.sent() == []
    talk.session.report(completed(1))
    credit, reports = talk.sent()
    assert (credit.credit.steps, credit.credit.bodies) == (1, 0)
    assert len(reports.reports.reports) == 1


def test_what_has_arrived_is_accepted_unless_its_end_is_durable() -> None:
    talk = Conversation()
    talk.sent()
    talk.give(step(1), step(2), body())
    talk.session.report(completed(1))
    talk.session.report(completed(2))
    talk.ack(ACK_STATUS_DURABLE, 1)
    talk.sent()
    talk.session.accept_arrived()
    [message] = talk.sent()
    assert [one.number for one in message.accepted.tokens] == [2, 0], "the end of 2 is on its way for longer than usual"
    talk.session.accept_arrived()
    assert talk.sent() == []


def test_what_is_known_to_be_in_hand_after_a_reconnect_is_not_accepted_again() -> None:
    talk = Conversation()
    talk.give(step(1))
    talk.session.disconnect()
    talk.connect()
    talk.sent()
    talk.session.accept_arrived()
    assert talk.sent() == []


def test_there_is_something_to_send_exactly_where_there_is_a_message() -> None:
    talk = Conversation()

    def is_true_to_its_word() -> bool:
        promised = talk.session.has_something_to_send
        return promised and bool(talk.sent()) and not talk.session.has_something_to_send

    assert is_true_to_its_word(), "credit"
    talk.give(step(1), step(2), body())
    talk.session.accept_arrived()
    assert is_true_to_its_word(), "accepted"
    talk.session.alive()
    assert is_true_to_its_word(), "heartbeat"
    talk.session.report(called(1), RUNNER)
    assert is_true_to_its_word(), "a report that frees no slot"
    talk.session.announce([Definition(kind=DEFINITION_KIND_STEP, module="m", name="b", digest="2")])
    assert is_true_to_its_word(), "announce"
    talk.session.write([WrittenLine(token=token(1))])
    assert is_true_to_its_word(), "log lines"
    talk.session.give_back([key_of(token(1))])
    assert is_true_to_its_word(), "returned, and the credit for it"
    talk.session.report(completed(2))
    talk.session.disconnect()
    assert not talk.session.has_something_to_send
    talk.connect()
    assert is_true_to_its_word(), "what was not acknowledged"


def test_credit_comes_with_reports_where_the_planner_takes_it_there() -> None:
    talk = Conversation()
    talk.tell(welcome=Welcome(credit_with_reports=True))
    [message] = talk.sent()
    assert (message.credit.steps, message.credit.bodies) == (4, 2)
    talk.give(step(1), step(2))
    talk.sent()
    talk.session.report(completed(1))
    [message] = talk.sent()
    assert [report.token.number for report in message.reports.reports] == [1]
    assert message.reports.credit == Credit(steps=1)
    talk.session.drain()
    talk.session.report(completed(2))
    [message] = talk.sent()
    assert not message.reports.HasField("credit")


def test_a_wide_window_is_refilled_in_few_messages() -> None:
    talk = Conversation(steps=64)
    talk.sent()
    talk.give(*map(step, range(1, 65)))
    talk.sent()
    for number in range(1, 8):
        talk.session.report(completed(number))
    assert kinds(talk.sent()) == ["reports"]
    talk.session.report(completed(8))
    assert [message.credit.steps for message in talk.sent()] == [8, 0]


def test_what_was_offered_while_steps_were_short_is_withdrawn_when_they_are_long() -> None:
    talk = Conversation(steps=64)
    talk.tell(welcome=Welcome(credit_with_reports=True, credit_instead=True))
    talk.give(*map(step, range(1, 11)))
    talk.sent()
    talk.session.offer(2, 2)
    assert [message.credit for message in talk.sent()] == [Credit(bodies=2, instead=True)]
    talk.give(step(11))
    for number in range(1, 11):
        talk.session.report(completed(number))
    assert talk.sent()[-1].reports.credit == Credit(steps=1), "as if nothing had been offered before"


def test_credit_for_live_work_is_apart() -> None:
    talk = Conversation(steps=2, bodies=1)
    talk.session.offer(2, 1, live_steps=1, live_bodies=1)
    assert talk.sent()[-1].credit == Credit(steps=2, bodies=1, live_steps=1, live_bodies=1)
    talk.give(step(1), step(2), Task(token=token(3), step=StepTask(), reserved=True))
    talk.session.report(completed(3), RUNNER)
    offered = [message.credit for message in talk.sent() if message.HasField("credit")]
    assert offered == [Credit(live_steps=1)], "what was taken from the one is offered for the same again"


def test_reports_of_live_work_go_first_and_apart() -> None:
    talk = Conversation()
    talk.give(*(Task(token=token(number), step=StepTask(), lane=LANE_BULK) for number in (1, 2)), step(3))
    talk.sent()
    for number in (1, 2, 3):
        talk.session.report(completed(number), RUNNER)
    reported = [
        [one.token.number for one in message.reports.reports] for message in talk.sent() if message.HasField("reports")
    ]
    assert reported == [[3], [1, 2]]


def test_reports_are_numbered_and_kept_until_they_are_durable() -> None:
    talk = Conversation()
    talk.give(step(1), step(2))
    talk.session.report(completed(1))
    talk.session.report(completed(2))
    assert [report.report_id for report in talk.sent_reports()] == [1, 2]
    assert not talk.session.settled
    talk.ack(ACK_STATUS_DURABLE, 2)
    talk.session.disconnect()
    talk.connect()
    assert [report.report_id for report in talk.sent_reports()] == [1]
    talk.ack(ACK_STATUS_DURABLE, 1)
    assert talk.session.settled


def test_after_a_reconnect_reports_come_in_order_and_credit_afresh() -> None:
    talk = Conversation()
    talk.sent()
    talk.give(step(1), step(2), step(3))
    talk.session.report(completed(1))
    talk.sent()
    talk.session.disconnect()
    talk.session.report(completed(2))
    hello = talk.connect()
    assert {one.number for one in hello.hello.in_hand} == {1, 2, 3}
    messages = talk.sent()
    assert kinds(messages) == ["credit", "reports"]
    assert messages[0].credit.steps == 3
    assert [report.token.number for report in messages[1].reports.reports] == [1, 2]


def test_a_task_whose_result_is_not_durable_is_still_in_hand() -> None:
    talk = Conversation()
    talk.give(step(1))
    talk.session.report(completed(1))
    talk.session.disconnect()
    assert [one.number for one in talk.connect().hello.in_hand] == [1]
    talk.ack(ACK_STATUS_DURABLE, 1)
    talk.session.disconnect()
    assert list(talk.connect().hello.in_hand) == []


def test_tasks_that_were_lost_are_stopped_and_reported_no_more() -> None:
    talk = Conversation()
    talk.give(step(1), step(2))
    talk.session.disconnect()
    talk.connect(token(1))
    assert [event.keys for event in talk.events if isinstance(event, Stop)] == [[key_of(token(1))]]
    assert not talk.session.report(completed(1))
    assert talk.session.report(completed(2))


def test_a_runner_gets_the_answer_under_its_own_id() -> None:
    talk = Conversation()
    talk.give(body())
    talk.session.report(called(runner_report_id=41), RUNNER)
    [event] = talk.ack(ACK_STATUS_DURABLE, 1)
    assert isinstance(event, Settled)
    assert event.runner == RUNNER
    assert [ack.report_id for ack in event.acks] == [41]


def test_acks_that_come_with_tasks_are_taken_before_them() -> None:
    talk = Conversation(bodies=1)
    assert talk.session.connect().hello.acks_with_tasks
    talk.connect()
    talk.give(body())
    talk.session.report(called(runner_report_id=41), RUNNER)
    durable = Ack(report_id=1, status=ACK_STATUS_DURABLE)
    settled, delivered = talk.tell(tasks=Tasks(acks=[durable], tasks=[step(1)]))
    assert isinstance(settled, Settled)
    assert [ack.report_id for ack in settled.acks] == [41]
    assert isinstance(delivered, Deliver)
    assert [task.token.number for task in delivered.tasks] == [1]


def test_a_runner_that_asks_for_no_answer_gets_none() -> None:
    talk = Conversation()
    talk.give(step(1))
    talk.session.report(completed(1), RUNNER)
    assert talk.ack(ACK_STATUS_DURABLE, 1) == []


def test_a_fenced_call_stops_its_body() -> None:
    talk = Conversation()
    talk.give(body())
    talk.session.report(called(5), RUNNER)
    settled, stop = talk.ack(ACK_STATUS_FENCED, 1)
    assert isinstance(settled, Settled)
    assert isinstance(stop, Stop)
    assert list(stop.keys) == [key_of(token(0))]
    assert talk.session.settled


def test_a_fenced_result_is_the_end_of_it() -> None:
    talk = Conversation()
    talk.give(step(1))
    talk.session.report(completed(1))
    assert talk.ack(ACK_STATUS_FENCED, 1) == []
    assert talk.session.settled


def test_a_result_that_cannot_be_recorded_becomes_a_failure() -> None:
    talk = Conversation()
    talk.give(step(1))
    talk.session.report(completed(1))
    talk.sent()
    talk.tell(acks=Acks(acks=[Ack(report_id=1, status=ACK_STATUS_REJECTED, reason="too large")]))
    [report] = talk.sent_reports()
    assert report.failed.failure.origin == FAILURE_ORIGIN_BACKEND
    assert "too large" in report.failed.failure.message
    talk.ack(ACK_STATUS_REJECTED, report.report_id)
    assert talk.session.settled


def test_a_step_goes_back_at_once_and_a_body_after_its_reports() -> None:
    talk = Conversation()
    talk.give(step(1), body())
    talk.sent()
    talk.session.report(called(3), RUNNER)
    talk.session.give_back([key_of(token(1)), key_of(token(0))])
    returned = [one.number for message in talk.sent() for one in message.returned.tokens]
    assert returned == [1]
    talk.ack(ACK_STATUS_DURABLE, 1)
    assert [one.number for message in talk.sent() for one in message.returned.tokens] == [0]
    assert talk.session.settled


def test_what_is_on_its_way_while_draining_goes_back_unseen() -> None:
    talk = Conversation()
    talk.sent()
    talk.session.drain()
    assert talk.give(step(1)) == []
    assert kinds(talk.sent()) == ["returned"]
    assert talk.session.settled


def test_a_cancelled_task_is_stopped_and_its_slot_offered_again() -> None:
    talk = Conversation()
    talk.give(step(1), step(2))
    talk.sent()
    [stop] = talk.tell(cancel=Cancel(tokens=[token(1)], reason="cancelled"))
    assert isinstance(stop, Stop)
    assert stop.reason == "cancelled"
    assert [message.credit.steps for message in talk.sent()] == [1]


def test_pages_of_recorded_calls_follow_their_body_and_cost_no_credit() -> None:
    talk = Conversation(bodies=1)
    talk.sent()
    page = Task(token=token(0), recorded=RecordedCalls())
    [first] = talk.give(body())
    [second] = talk.give(page)
    assert isinstance(first, Deliver)
    assert isinstance(second, Deliver)
    talk.session.accept_arrived()
    [accepted] = talk.sent()
    assert [one.number for one in accepted.accepted.tokens] == [0]
    assert talk.give(Task(token=token(0, epoch=2), recorded=RecordedCalls())) == []


def test_a_body_whose_pages_a_stream_has_cut_off_is_not_in_hand_on_the_next() -> None:
    """Nobody would send the rest: it goes to whoever is given it from its beginning."""
    talk = Conversation()
    talk.give(body_that_goes_on())
    talk.session.disconnect()
    assert list(talk.connect().hello.in_hand) == []
    assert [event.keys for event in talk.events if isinstance(event, Stop)] == [[key_of(token(0))]]


def test_a_body_that_has_come_whole_stays_in_hand() -> None:
    talk = Conversation()
    talk.give(body_that_goes_on(), Task(token=token(0), recorded=RecordedCalls(more=True)))
    talk.give(Task(token=token(0), recorded=RecordedCalls()))
    talk.session.disconnect()
    assert list(talk.connect().hello.in_hand) == [token(0)]


def test_a_hello_says_which_outcomes_bodies_wait_for() -> None:
    talk = Conversation()
    recorded = RecordedCalls(calls=[RecordedCall(number=number, action=action) for number, action in _RECORDED])
    talk.give(Task(token=token(0), body=BodyTask(recorded=recorded)))
    talk.give(Task(token=token(0), recorded=RecordedCalls(calls=[RecordedCall(number=4, action=_AWAIT)])))
    talk.session.report(Report(token=token(0), call=Call(number=5, submitted=CallSubmitted())))
    talk.session.report(Report(token=token(0), call=Call(number=6)))
    talk.tell(resolved=Resolved(calls=[ResolvedCall(body=token(0), number=2)]))
    talk.session.disconnect()
    [awaiting] = talk.connect().hello.awaiting
    assert (awaiting.body, list(awaiting.numbers)) == (token(0), [3, 4, 5])


_AWAIT = RECORDED_CALL_ACTION_AWAIT
_RECORDED = [(1, RECORDED_CALL_ACTION_REUSE), (2, _AWAIT), (3, _AWAIT)]


def test_new_code_is_announced_on_the_stream_and_in_the_next_hello() -> None:
    talk = Conversation()
    talk.sent()
    more = Definition(kind=DEFINITION_KIND_STEP, module="m", name="b", digest="2")
    talk.session.announce([more, more])
    [message] = talk.sent()
    assert [one.name for one in message.announce.definitions] == ["b"]
    talk.session.disconnect()
    assert [one.name for one in talk.connect().hello.definitions] == ["a", "b"]


def test_a_heartbeat_names_what_has_started_and_is_still_in_hand() -> None:
    talk = Conversation()
    talk.give(step(1))
    talk.sent()
    talk.session.alive([key_of(token(1)), key_of(token(9))])
    [message] = talk.sent()
    assert [one.number for one in message.heartbeat.running] == [1]


def test_a_heartbeat_does_not_wait_until_there_is_nothing_to_report() -> None:
    """Nothing else keeps the lease, and where steps are short there may be something each time that it is asked."""
    talk = Conversation()
    talk.give(step(1), step(2), step(3))
    talk.sent()
    talk.session.alive()
    sent = []
    for number in (1, 2, 3):
        talk.session.report(completed(number))
        message = talk.session.next_message()
        assert message is not None
        sent.append(message)
    assert "heartbeat" in kinds(sent)


def test_a_message_of_reports_stays_below_what_servers_take() -> None:
    talk = Conversation(steps=8)
    talk.give(*map(step, range(1, 9)))
    talk.sent()
    for number in range(1, 9):
        report = completed(number)
        report.completed.code_digest = "d" * 400_000
        talk.session.report(report)
    sizes = [len(message.reports.reports) for message in talk.sent() if message.HasField("reports")]
    assert sizes == [2, 2, 2, 2]


@pytest.mark.parametrize("reason", ["maintenance"])
def test_a_planner_that_goes_is_heard(reason: str) -> None:
    assert Conversation().tell(drain=Drain(reason=reason)) == [DrainAsked(reason)]
