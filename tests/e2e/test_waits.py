"""Flows that wait for an answer: typed, timed, repeated, refused, replayed; with real processes."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import dalsegno
from dalsegno import Client, ContextError, ExecutionError, StateError, UsageError, WaitValidationError
from dalsegno.client.handles import ExecutionHandle
from dalsegno.client.waits import Wait
from dalsegno.states import ExecutionState
from tests.e2e import waiting_flows as code
from tests.e2e.test_worker import SECONDS, Place
from tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A planner and a worker with one process that runs one body at a time."""
    name = postgres.create_database(migrated=True)
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        place = Place(postgres.dsn(name), tmp_path_factory.mktemp("waits"), stack)
        place.planner()
        place.worker("--processes", "1", module=code.__name__)
        yield place


@pytest.fixture
def client(served: Place) -> Iterator[Client]:
    """A client of the planner."""
    with Client(served.address, "e2e") as opened:
        yield opened


def asked(client: Client, handle: ExecutionHandle[Any] | dalsegno.Execution) -> Wait:
    """The question that an execution asks, once it waits for the answer."""
    reach = client.reach
    from dalsegno.v1.execution_service_pb2 import ExecutionServiceWatchRequest

    request = ExecutionServiceWatchRequest(execution=handle.exec_id, execution_only=True)
    for message in reach.happenings(request, SECONDS):
        execution = dalsegno.Execution(message.execution, reach)
        assert not execution.status.finished, execution.failure
        if execution.status is ExecutionState.WAITING:
            break
    (pending,) = [wait for wait in client.executions.get(handle.exec_id).waits if wait.status == "pending"]
    return pending


@pytest.mark.semantics("6", "schema is a type, a Pydantic model or a JSON Schema")
@pytest.mark.semantics("6", "stores the answer with who gave it, and the execution goes on by itself")
def test_answers_have_the_type_that_was_asked_for(served: Place, client: Client) -> None:
    handle = served.start(code.typed, "pies")
    wait = asked(client, handle)
    assert (wait.name, wait.question, wait.metadata) == ("number", "How many PIES?", {"to": "ada"})
    with pytest.raises(WaitValidationError, match="not of type 'integer'"):
        client.executions.input(handle.exec_id, value="many")
    with pytest.raises(StateError, match="pending: number"):
        client.executions.input(handle.exec_id, wait="verdict", value={"grade": 1})
    answered = client.executions.input(handle.exec_id, value=2)
    assert (answered.status, bool(answered.answered_by), answered.answered_at is not None) == ("answered", True, True)
    asked(client, handle)
    with pytest.raises(WaitValidationError, match="grade"):
        client.executions.input(handle.exec_id, wait="verdict", value={"remark": "no grade"})
    client.executions.input(handle.exec_id, wait="verdict", value={"grade": 1, "remark": "fine"})
    asked(client, handle)
    with pytest.raises(StateError, match="answered already"):
        client.executions.input(handle.exec_id, wait="verdict", value={"grade": 2})
    with pytest.raises(WaitValidationError, match="green"):
        client.executions.input(handle.exec_id, value={"colour": "green"})
    client.executions.input(handle.exec_id, value={"colour": "blue"})
    asked(client, handle)
    with pytest.raises(WaitValidationError, match="go on"):
        client.executions.input(handle.exec_id, value="yes")
    client.executions.input(handle.exec_id, value=True)
    assert handle.wait(SECONDS) == ["3", "Verdict", "fine", "blue", "True"]
    with pytest.raises(StateError, match="no wait is pending"):
        client.executions.input(handle.exec_id, value=True)


def test_who_waits_in_a_script_is_told_what_for(
    served: Place, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    handle = served.start(code.gate)
    asked(client, handle)
    answer = f"dalsegno executions input {handle.name} --interactive"
    with pytest.raises(TimeoutError, match=f"it asks something; answer with: {answer}"):
        handle.wait(1)
    assert caplog.messages == [f"{handle.name} waits for an answer: {answer}"]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_wait_says_that_the_execution_goes_on(served: Place, client: Client) -> None:
    class Interrupts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGINT)

    handle = served.start(code.gate)
    interrupts = Interrupts()
    logging.getLogger("dalsegno").addHandler(interrupts)
    try:
        with pytest.raises(KeyboardInterrupt) as interrupted:
            handle.wait(SECONDS)
    finally:
        logging.getLogger("dalsegno").removeHandler(interrupts)
    assert interrupted.value.__notes__ == [
        f"{handle.name} is not cancelled by this: dalsegno executions cancel {handle.name}"
    ]
    frames = "".join(traceback.format_exception(interrupted.value))
    assert "handle.wait(SECONDS)" in frames
    assert "_channel.py" not in frames
    client.executions.cancel(handle.exec_id)


@pytest.mark.semantics("6", "Repeated wait names get _2, _3 and are asked each time")
@pytest.mark.semantics("6", "In a replay every wait that the body reaches is a new wait")
def test_waits_are_asked_each_time_and_again_in_a_replay(served: Place, client: Client) -> None:
    handle = served.start(code.repeated, 3)
    names = []
    for count in (1, 2, 3):
        names.append(asked(client, handle).invocation_id)
        client.executions.input(handle.exec_id, value=count)
    assert names == ["count", "count_2", "count_3"]
    assert handle.wait(SECONDS) == [1, 2, 3]
    replay = client.executions.replay(handle.exec_id)
    assert [entry.invocation_id for entry in client.executions.plan(handle.exec_id).waits] == names
    for count in (7, 8, 9):
        asked(client, replay)
        client.executions.input(replay.exec_id, value=count)
    assert client.executions.wait(replay.exec_id, SECONDS).result == [7, 8, 9]
    assert handle.execution.result == [1, 2, 3]


@pytest.mark.semantics("6", "timeout is a deadline: past it the call raises WaitTimeoutError in the body")
def test_past_its_deadline_the_wait_raises_in_the_body(served: Place, client: Client) -> None:
    handle = served.start(code.hurried)
    assert handle.wait(SECONDS) == "True: WAIT 'APPROVE' WAS NOT ANSWERED BEFORE ITS DEADLINE"
    (wait,) = handle.execution.waits
    assert wait.status == "timed_out"
    with pytest.raises(StateError):
        client.executions.input(handle.exec_id, value=True)


@pytest.mark.semantics("6", "Outside a flow or inside a step: ContextError")
def test_a_wait_has_its_place_in_the_body_of_a_flow(served: Place) -> None:
    with pytest.raises(ContextError) as outside:
        dalsegno.wait(name="outside")
    assert outside.value.reason == "OUTSIDE_FLOW"
    assert served.run(code.misplaced) == "INSIDE_STEP"


def test_a_body_that_swallows_everything_waits_all_the_same(served: Place, client: Client) -> None:
    handle = served.start(code.careless)
    asked(client, handle)
    client.executions.input(handle.exec_id, value="fine")
    assert handle.wait(SECONDS) == "fine"


@pytest.mark.semantics("6", "without one the wait is a continue/abort gate")
@pytest.mark.semantics("6", "executions.abort_wait cancels")
@pytest.mark.semantics("7", "resume continues a waiting execution whose waits are answered")
def test_a_gate_is_opened_closed_or_aborted(served: Place, client: Client) -> None:
    refused, aborted, opened = (served.start(code.gate) for _ in range(3))
    for handle in (refused, aborted, opened):
        asked(client, handle)
    client.executions.input(refused.exec_id, value=False)
    with pytest.raises(ExecutionError, match="abort"):
        refused.wait(SECONDS)
    assert client.executions.abort_wait(aborted.exec_id).status is ExecutionState.CANCELLED
    assert client.executions.abort_wait(aborted.exec_id).status is ExecutionState.CANCELLED
    with pytest.raises(StateError, match="gate"):
        client.executions.resume(opened.exec_id)
    client.executions.input(opened.exec_id, value=True)
    assert opened.wait(SECONDS) == "through"
    with pytest.raises(StateError, match="nothing to resume"):
        client.executions.resume(opened.exec_id)


@pytest.mark.semantics("6", "Wait answers cannot be overridden or filled in beforehand")
def test_an_answer_cannot_be_given_beforehand(served: Place, client: Client, tmp_path: Path) -> None:
    handle = served.start(code.gate)
    asked(client, handle)
    for key in ("wait.gate", "checkpoint.gate"):
        with pytest.raises((UsageError, StateError), match="wait"):
            client.executions.replay(handle.exec_id, overrides={key: True})
    client.executions.cancel(handle.exec_id)
    with pytest.raises(StateError, match="none is pending"):
        client.executions.input(handle.exec_id, wait="gate", value=True)
