"""SEMANTICS §3: which executions can be replayed, and what happens to them afterwards."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dalsegno import Client, Execution, flow, pipeline, step, wait
from dalsegno.errors import ExecutionError, StateError, UsageError
from tests.e2e.planning.plans import ids
from tests.e2e.planning.programs import ran


@step
def fact(n: int) -> int:
    ran.append("fact")
    return n


@flow
def asking(n: int) -> Any:
    known = fact(n)
    return known, wait(name="go", schema=int), wait(name="sure", schema=bool)


def waiting(client: Client, execution: object) -> Execution:
    while (found := client.executions.get(execution)).status != "waiting":
        try:
            client.executions.wait(execution, 0.02)
        except TimeoutError:
            continue
    return found


@pytest.mark.semantics("3", ".waits that will be asked again")
@pytest.mark.semantics(
    "3", "A running source is refused (StateError); completed, failed, cancelled and waiting ones can be"
)
def test_waiting_cancelled_and_completed_sources_can_be_replayed_and_their_waits_are_asked_again(
    client: Client,
) -> None:
    first, second = (waiting(client, asking.run(one)) for one in (1, 2))
    assert ids(client.executions.plan(first, from_="fact").waits) == ["go"]
    replay = waiting(client, client.executions.replay(first, from_="fact"))
    for run in (first, replay):
        client.executions.input(run, wait="go", value=int(run.inputs["n"]) + 40)
        waiting(client, run)
        client.executions.input(run, wait="sure", value=True)
        assert client.executions.wait(run, 60).result == (1, 41, True)
    assert ids(client.executions.plan(first, from_="fact").waits) == ["go", "sure"]
    client.executions.cancel(second.exec_id)
    assert client.executions.wait(second, 60).status == "cancelled"
    assert ids(client.executions.plan(second, from_="fact").affected) == ["fact"]


def test_a_running_source_is_refused(client: Client) -> None:
    """It says what to do."""
    started, go_on = threading.Event(), threading.Event()
    _held[:] = [started, go_on]
    run = holding.run()
    assert started.wait(60)
    try:
        for ask in (client.executions.plan, client.executions.replay):
            with pytest.raises(StateError, match=r"is running; wait until it has ended, or cancel it"):
                ask(run.exec_id, from_="held")
    finally:
        go_on.set()
    run.wait(60)
    assert ids(client.executions.plan(run.exec_id, from_="held").affected) == ["held"]


_held: list[Any] = []


@step
def held() -> int:
    started, go_on = _held
    started.set()
    go_on.wait(60)
    return 1


@flow
def holding() -> int:
    return held()


_mended: list[bool] = []


@step
def flaky() -> str:
    if not _mended:
        raise ValueError("not yet")
    return "mended"


@step
def after_flaky(text: str) -> str:
    return text


@pipeline
def retried() -> str:
    return after_flaky(flaky())


@pytest.mark.semantics("3", "What a source gets afterwards (an answer, a retry) does not change a replay made before.")
def test_a_retry_of_the_source_does_not_change_a_replay(client: Client) -> None:
    _mended.clear()
    with pytest.raises(ExecutionError) as failed:
        retried()
    source = client.executions.get(failed.value.exec_id)
    replay = client.executions.wait(client.executions.replay(source, overrides={"checkpoint.flaky": "override"}), 60)
    again = client.executions.wait(client.executions.replay(source, from_="flaky"), 60)
    before = [(one.invocation_id, one.status, one.call_id) for run in (replay, again) for one in run.checkpoints]
    _mended.append(True)
    client.executions.retry(source.exec_id)
    assert client.executions.wait(source, 60).result == "mended"
    replay, again = (client.executions.get(run.exec_id) for run in (replay, again))
    assert (replay.result, again.status) == ("override", "failed")
    assert [
        (one.invocation_id, one.status, one.call_id) for run in (replay, again) for one in run.checkpoints
    ] == before
    with pytest.raises(UsageError, match="did not succeed"):
        client.executions.plan(replay, skip=["flaky"])
    assert ids(client.executions.plan(source, skip=["flaky"]).reused) == ["flaky"]
