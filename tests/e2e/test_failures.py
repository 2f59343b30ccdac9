"""Failures in real processes: each is told from the others by where it was raised, is retried, and stopped for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from dalsegno.cli.session import Session
from dalsegno.cli.views import StepView
from dalsegno.client.executions import Execution
from dalsegno.client.starts import start_flow
from dalsegno.decorators import Flow, Pipeline
from dalsegno.errors import ExecutionError, Failure, FailureOrigin, UserCodeError
from dalsegno.states import ExecutionState, InvocationState
from tests.e2e import failing_flows as code
from tests.e2e.test_worker import SECONDS, Place
from tests.postgres import PostgresServer

MODULE = code.__name__


@pytest.fixture(scope="module")
def engine(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A planner and a worker with one process, which all tests share."""
    name = postgres.create_database(migrated=True)
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        shared = Place(postgres.dsn(name), tmp_path_factory.mktemp("engine"), stack)
        shared.planner()
        shared.worker("--processes", "1", module=MODULE)
        yield shared


@pytest.fixture
def served(engine: Place, tmp_path: Path) -> Iterator[Place]:
    """The shared processes, and a folder of the test's own."""
    with ExitStack() as stack:
        yield engine.for_test(tmp_path, stack)


def run(served: Place, runnable: Flow[..., Any] | Pipeline[..., Any], *args: object) -> Execution:
    """Run to the end, whatever that is."""
    executions = served.client.executions
    return executions.wait(executions.start(runnable, *args), SECONDS)


def raised(execution: Execution) -> Failure:
    """The failure of an execution, which is also what its error carries."""
    assert execution.status is ExecutionState.FAILED
    with pytest.raises(ExecutionError) as caught:
        execution.raise_failure()
    error = caught.value
    assert (error.exec_id, error.failure) == (execution.exec_id, execution.failure)
    assert error.failure is not None
    assert isinstance(error, UserCodeError) is (error.failure.origin is FailureOrigin.USER_CODE)
    return error.failure


USER_CODE, RUNTIME = FailureOrigin.USER_CODE, FailureOrigin.RUNTIME
FAILURES = {
    "misleading": (USER_CODE, "builtins:RuntimeError", code.MISLEADING, ""),
    "lock": (USER_CODE, f"{MODULE}:WithLock", "it has a lock", ""),
    "unbuildable": (USER_CODE, f"{MODULE}:Unbuildable", "code 3: look elsewhere", ""),
    "speechless": (USER_CODE, f"{MODULE}:Speechless", "cannot be had", ""),
    "local": (USER_CODE, f"{MODULE}:_fail.<locals>.Local", "nobody finds this class", ""),
    "exit": (USER_CODE, "builtins:SystemExit", "3", ""),
    "interrupt": (USER_CODE, "builtins:KeyboardInterrupt", "", ""),
    "kill": (RUNTIME, None, "was killed by SIGKILL", "PROCESS_DIED"),
    "segfault": (RUNTIME, None, "was killed by SIGSEGV", "PROCESS_DIED"),
    "leave": (RUNTIME, None, "exited with code 0", "PROCESS_DIED"),
}


RUNNABLES: tuple[Flow[..., Any] | Pipeline[..., Any], ...] = (code.directly, code.elsewhere, code.piped)
# Whatever ends a process ends it the same way in each of these places.
PLACES = [
    pytest.param(runnable, kind, id=f"{runnable.name}-{kind}")
    for runnable in RUNNABLES
    for kind in FAILURES
    if kind not in ("segfault", "leave") or runnable is code.elsewhere
]


@pytest.mark.semantics("7", "origin (user_code runtime backend divergence unknown, decided by where it was raised)")
@pytest.mark.semantics("7", "handle.wait() returns the function's own return value, or raises UserCodeError")
@pytest.mark.parametrize(("runnable", "kind"), PLACES)
def test_a_failure_says_where_it_was_raised(
    served: Place, runnable: Flow[..., Any] | Pipeline[..., Any], kind: str
) -> None:
    origin, exception_type, message, reason = FAILURES[kind]
    execution = run(served, runnable, kind)
    failure = raised(execution)
    assert (failure.origin, failure.exception_type, failure.reason or "") == (origin, exception_type, reason)
    assert message in failure.message
    assert (failure.invocation_id, failure.attempt) == ("fails", 2)
    if origin is USER_CODE:
        assert failure.traceback is not None
        assert "in _fail" in failure.traceback
    # All attempts are kept.
    attempts = execution.checkpoints["fails"].failed_attempts
    assert [(one.attempt, one.origin, one.exception_type) for one in attempts] == [
        (1, origin, exception_type),
        (2, origin, exception_type),
    ]


@pytest.mark.parametrize("kind", ["misleading", "lock", "speechless", "exit", "interrupt", "kill"])
def test_a_body_that_fails_says_so_too(served: Place, kind: str) -> None:
    origin, exception_type, message, reason = FAILURES[kind]
    failure = raised(run(served, code.in_the_body, kind))
    assert (failure.origin, failure.exception_type, failure.reason or "") == (origin, exception_type, reason)
    assert message in failure.message
    assert failure.invocation_id is None


@pytest.mark.parametrize(
    ("kind", "exception"),
    [("misleading", "RuntimeError"), ("unbuildable", "UserCodeError"), ("exit", "UserCodeError"),
     ("lock", "UserCodeError"), ("kill", "ExecutionError")],
)  # fmt: skip
def test_a_body_may_catch_it(served: Place, kind: str, exception: str) -> None:
    assert run(served, code.caught, kind).result == exception


@pytest.mark.semantics("7", "Steps: retries with backoff, timeout, each attempt recorded")
@pytest.mark.parametrize(("kind", "attempts"), [("reset", 3), ("pipe", 1), ("value", 1)])
@pytest.mark.parametrize(
    "runnable", [code.choosy_directly, code.choosy_elsewhere, code.choosy_piped], ids=lambda one: one.name
)
def test_only_given_exceptions_are_tried_again(
    served: Place, runnable: Flow[..., Any] | Pipeline[..., Any], kind: str, attempts: int
) -> None:
    execution = run(served, runnable, kind)
    assert raised(execution).attempt == attempts
    kept = execution.checkpoints["choosy"].failed_attempts
    assert [one.attempt for one in kept] == list(range(1, attempts + 1))


def test_a_timeout_ends_code_that_nothing_can_interrupt_and_it_is_tried_again(served: Place) -> None:
    execution = run(served, code.stuck, str(served.folder))
    first = int((served.folder / "first").read_text())
    assert execution.result != first
    assert not psutil.wait_procs([psutil.Process(first)] if psutil.pid_exists(first) else [], timeout=SECONDS)[1]
    (timed_out,) = execution.checkpoints["stuck_once"].failed_attempts
    assert (timed_out.origin, timed_out.reason, timed_out.exception_type, timed_out.attempt) == (
        RUNTIME,
        "STEP_TIMEOUT",
        "builtins:TimeoutError",
        1,
    )


@pytest.mark.semantics("7", "cancel stops it and frees what it held")
@pytest.mark.parametrize("flow", [code.sleeping, code.sleeping_elsewhere], ids=lambda one: one.name)
def test_what_is_cancelled_is_told_and_tidies_up(served: Place, flow: Flow[..., Any]) -> None:
    started = served.fifo("started")
    tidied = served.fifo("tidied") if flow is code.sleeping_elsewhere else served.folder / "tidied"
    handle = served.start(flow, str(served.folder))
    runner = int(started.read_text())
    served.client.executions.cancel(handle.exec_id, "not needed")
    served.client.executions.cancel(handle.exec_id, "twice is once")
    if flow is code.sleeping:
        # In a thread of a body, which nothing wakes: it ends with its process.
        assert not psutil.wait_procs([psutil.Process(runner)], timeout=SECONDS)[1]
    else:
        assert tidied.read_text() == "True"
        assert handle.execution.checkpoints["sleeps"].status is InvocationState.CANCELLED
        assert run(served, code.asking).result == runner
    execution = handle.execution
    assert execution.failure is not None
    assert (execution.status, execution.failure.message) == (
        ExecutionState.CANCELLED,
        "cancelled: not needed",
    )


@pytest.mark.parametrize(
    "flow", [code.stubborn_directly, code.stubborn_elsewhere, code.stubborn_body], ids=lambda one: one.name
)
def test_what_does_not_stop_is_ended_after_a_while(served: Place, flow: Flow[..., Any]) -> None:
    started = served.fifo("started")
    handle = served.start(flow, str(served.folder))
    runner = psutil.Process(int(started.read_text()))
    served.client.executions.cancel(handle.exec_id)
    assert not psutil.wait_procs([runner], timeout=SECONDS)[1]
    assert run(served, code.asking).status is ExecutionState.COMPLETED


def test_an_execution_ends_at_its_deadline(served: Place) -> None:
    started, tidied = served.fifo("started"), served.fifo("tidied")
    handle = start_flow(code.sleeping_elsewhere, (str(served.folder),), {}, served.client, timeout=1.0)
    started.read_text()
    with pytest.raises(ExecutionError) as caught:
        handle.wait(SECONDS)
    assert caught.value.reason == "EXECUTION_TIMEOUT"
    assert handle.execution.deadline is not None
    assert tidied.read_text() == "True"
    executions = served.client.executions
    for timeout, expected in ((None, 1.0), (77, 77.0)):
        replay = executions.replay(handle.exec_id, timeout=timeout)
        assert replay.timeout == expected
        executions.cancel(replay.exec_id)


def test_how_far_a_step_has_come_is_shown_while_it_runs(served: Place) -> None:
    go = served.fifo("go")
    handle = served.start(code.counting, str(served.folder))
    with Session(served.address, "e2e") as session:
        for event in session.watch(handle.exec_id):
            if isinstance(event, StepView) and event.progress is not None and event.progress.done == 3:
                assert event.state is InvocationState.RUNNING
                assert str(event.progress) == "3/3 epochs"
                break
    shown = handle.execution.checkpoints["counts"].progress
    assert shown is not None
    assert (shown.done, shown.total, shown.message) == (3, 3, "epochs")
    go.write_text("go")
    assert handle.wait(SECONDS) == 3
