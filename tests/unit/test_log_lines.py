"""Lines on their way through an executor: bounded, counted, and before what came after them."""

from __future__ import annotations

from dalsegno.v1.executor_service_pb2 import (
    ExecutorServiceWorkResponse,
    Report,
    StepCompleted,
    StepTask,
    Task,
    Tasks,
    TaskToken,
    Welcome,
    WrittenLine,
)
from dalsegno.v1.log_pb2 import LogLine
from dalsegno_executor.log_lines import LogQueue
from dalsegno_executor.protocol import Identity, Session


def token(number: int = 1, execution: bytes = b"e" * 16) -> TaskToken:
    return TaskToken(execution_id=execution, number=number, epoch=1)


def line(text: str, execution: bytes = b"e" * 16) -> WrittenLine:
    return WrittenLine(token=token(1, execution), line=LogLine(text=text, number=1))


def test_what_there_is_no_room_for_is_counted_for_each_execution() -> None:
    queue = LogQueue(capacity=200)
    assert not queue
    queue.add([line("x" * 100), line("y" * 100), line("z" * 100, b"f" * 16), line("small")])
    queue.add([WrittenLine(token=token(), line=LogLine(left_out=5))])
    taken = queue.take().lines
    assert [(one.line.text[:5], one.line.left_out) for one in taken] == [("xxxxx", 0), ("small", 0), ("", 6), ("", 1)]
    assert [one.line.number for one in taken[2:]] == [0, 0]
    assert not queue
    queue.add([line("y" * 100)])
    assert len(queue.take().lines) == 1


def _session(count: int) -> Session:
    """A session with as many steps in hand, which has nothing to send."""
    session = Session(Identity(b"s" * 16, "here:1", "default"))
    session.connect()
    session.receive(ExecutorServiceWorkResponse(welcome=Welcome()))
    tasks = [Task(token=token(number), step=StepTask()) for number in range(1, count + 1)]
    session.receive(ExecutorServiceWorkResponse(tasks=Tasks(tasks=tasks)))
    session.accept_arrived()
    assert _sent(session) == ["accepted"]
    return session


def _sent(session: Session) -> list[str | None]:
    sent: list[str | None] = []
    while (message := session.next_message()) is not None:
        sent.append(message.WhichOneof("message"))
    return sent


def _complete(session: Session, number: int) -> None:
    session.report(Report(token=token(number), completed=StepCompleted()))


def test_lines_go_before_the_reports_that_came_after_them() -> None:
    session = _session(2)
    session.write([line("of the first")])
    _complete(session, 1)
    assert _sent(session) == ["log_lines", "reports"]
    _complete(session, 2)
    assert _sent(session) == ["reports"]


def test_lines_without_end_hold_up_neither_reports_nor_heartbeats() -> None:
    session = _session(2)
    _complete(session, 1)
    session.alive()
    sent: list[str | None] = []
    for _ in range(6):
        session.write([line("again")])
        message = session.next_message()
        assert message is not None
        sent.append(message.WhichOneof("message"))
        if len(sent) == 3:
            _complete(session, 2)
    assert sent == ["heartbeat", "log_lines", "reports", "log_lines", "reports", "log_lines"]


def test_lines_wait_for_the_next_stream() -> None:
    session = _session(1)
    session.disconnect()
    session.write([line("meanwhile")])
    assert _sent(session) == []
    session.connect()
    session.receive(ExecutorServiceWorkResponse(welcome=Welcome()))
    assert _sent(session) == ["log_lines"]
