"""What calls return, when they do, and what they raise."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator

import pytest

from dalsegno import Client, Execution, ExecutionHandle, ExecutionState, UserCodeError, flow, pipeline, step

opened = threading.Event()


@pytest.fixture
def held() -> Iterator[None]:
    """Holds every step `gate` until the test lets go of it."""
    opened.clear()
    yield
    opened.set()


@step
def gate(value: int) -> int:
    opened.wait(60)
    return value


@step
def halve(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value // 2


@pipeline
def halving(value: int = 8) -> int:
    return halve(value)


@flow
def halving_flow(value: int = 8) -> int:
    return halve(value)


@pipeline
def gated(value: int) -> int:
    return gate(value)


@flow
def gated_flow(value: int) -> int:
    return gate(value)


@pytest.mark.semantics(
    "8", "pipeline(...), pipeline.replay and step.replay wait and return the execution", "import_ returns the execution"
)
def test_what_runs_a_pipeline_or_a_step_returns_the_finished_execution(client: Client) -> None:
    run = halving()
    replays = (
        halving.replay(pipeline_run=run, input_overrides={"value": 10}),
        halve.replay(pipeline_run=run, input_overrides={"value": 10}),
    )
    assert [type(one) for one in (run, *replays)] == [Execution] * 3
    assert [one.status for one in (run, *replays)] == [ExecutionState.COMPLETED] * 3
    assert (run.result, replays[0].result, replays[1].checkpoints["halve"].load()) == (4, 5, 5)
    imported = client.executions.import_({"flow": "elsewhere", "kind": "flow", "steps": []})
    assert (type(imported), imported.status) == (Execution, ExecutionState.COMPLETED)


@pytest.mark.semantics("8", "raising as handle.wait does, with exec_id on the error")
def test_what_waits_raises_with_the_execution_that_failed(client: Client) -> None:
    run, started = halving(), halving_flow.run(3)
    with pytest.raises(UserCodeError) as awaited:
        started.wait(30)
    assert awaited.value.exec_id == started.exec_id
    calls = (
        lambda: halving(3),
        lambda: halving.replay(pipeline_run=run, input_overrides={"value": 3}),
        lambda: halve.replay(pipeline_run=run, input_overrides={"value": 3}),
        lambda: halving_flow(3),
    )
    for call in calls:
        with pytest.raises(UserCodeError, match="3 is odd") as caught:
            call()
        assert caught.value.exec_id not in (None, run.exec_id, started.exec_id)
        failed = client.executions.get(caught.value.exec_id)
        assert failed.status is ExecutionState.FAILED
        assert failed.failure == caught.value.failure


@pytest.mark.semantics(
    "8", "flow.run and flow.replay return a handle; a flow called directly runs and returns its value"
)
def test_a_flow_gives_a_handle_or_its_value(held: None, client: Client) -> None:
    first = gated_flow.run(1)
    assert isinstance(first, ExecutionHandle)
    assert not first.status.finished
    opened.set()
    assert first.wait(30) == 1
    opened.clear()
    again = gated_flow.replay(exec_id=first.exec_id, value=2)
    assert isinstance(again, ExecutionHandle)
    assert (again.status.finished, again.original_exec_id) == (False, first.exec_id)
    opened.set()
    assert (again.wait(30), again.status) == (2, "completed")
    assert halving_flow(6) == 3
    assert sum(1 for _ in client.executions.list(flow="halving_flow", status="completed")) == 1


@pytest.mark.semantics("8", "a step called outside a flow is its plain function")
def test_a_step_outside_a_flow_is_its_function(client: Client) -> None:
    before = sum(1 for _ in client.executions.list())
    assert halve(6) == 3
    with pytest.raises(ValueError, match="3 is odd"):
        halve(3)
    assert inspect.signature(halve) == inspect.signature(halve.function)
    assert sum(1 for _ in client.executions.list()) == before


@pytest.mark.semantics("8", "executions.replay and replay_pipeline_run return at once")
def test_replays_through_the_client_return_at_once(held: None, client: Client) -> None:
    opened.set()
    run = gated(5)
    opened.clear()
    replays = (
        client.executions.replay(run.exec_id, value=6),
        client.replay_pipeline_run(name_id_or_prefix=run.name, run_configuration={"parameters": {"value": 7}}),
    )
    assert [one.status.finished for one in replays] == [False, False]
    assert [one.original_exec_id for one in replays] == [run.exec_id] * 2
    opened.set()
    assert [client.executions.wait(one).result for one in replays] == [6, 7]


@pytest.mark.semantics(
    "8", "executions.wait(id, timeout=None) returns the finished execution without raising its failure"
)
def test_waiting_for_an_execution_does_not_raise_its_failure(held: None, client: Client) -> None:
    failing = halving_flow.run(3)
    ended = client.executions.wait(failing.exec_id)
    assert ended.status is ExecutionState.FAILED
    assert ended.failure is not None
    assert "3 is odd" in ended.failure.message
    blocked = gated_flow.run(1)
    with pytest.raises(TimeoutError, match=f"{blocked.exec_id}.* after 0.05 s"):
        client.executions.wait(blocked.exec_id, timeout=0.05)
    client.executions.cancel(blocked.exec_id)
    assert client.executions.wait(blocked.exec_id, 30).status is ExecutionState.CANCELLED


@pytest.mark.semantics("8", "handle.wait(timeout) raises TimeoutError")
def test_a_handle_waits_no_longer_than_it_is_told(held: None) -> None:
    handle = gated_flow.run(1)
    for timeout in (0.05, 0):
        with pytest.raises(TimeoutError, match=handle.exec_id):
            handle.wait(timeout)
    opened.set()
    assert handle.wait() == 1
    assert handle.wait(0.0) == 1


@pytest.mark.semantics("8", "executions.list() iterates over all pages")
def test_listing_goes_through_all_pages(client: Client) -> None:
    record = {"flow": "paged", "kind": "flow", "steps": []}
    made = [client.executions.import_(record).exec_id for _ in range(7)]
    listed = client.executions.list(flow="paged", page_size=2)
    assert [one.exec_id for one in listed] == made[::-1]
    assert [one.exec_id for one in client.executions.list(flow="paged")] == made[::-1]
