"""Executions, checkpoints and artifacts as clients see them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
import pytest

from dalsegno import (
    Client,
    ExecutionState,
    FailureOrigin,
    InvocationState,
    NotFoundError,
    UserCodeError,
    flow,
    pipeline,
    step,
    wait,
)


@step
def load(size: int) -> tuple[Annotated[Any, "xs"], Annotated[int, "count"]]:
    return np.arange(size), size


@step
def total(xs: Any, start: int = 0) -> int:
    return int(xs.sum()) + start


@step
def refuse(reason: str) -> None:
    raise RuntimeError(reason)


@pipeline
def totals(size: int = 4, start: int = 0) -> int:
    xs, _ = load(size)
    return total(xs, start)


@pipeline
def listed(size: int = 30_000) -> dict[Any, Any]:
    xs, count = load(size)
    return {"xs": xs, "count": count, "both": ([size], xs), 3: None}


@flow
def asking(size: int, start: int = 5) -> int:
    xs, _ = load(size)
    answer: int = wait(name="more", schema=int, question="How many more?")
    return total(xs, start + answer)


@flow
def failing(reason: str) -> None:
    refuse(reason)


@pytest.mark.semantics(
    "8", "An execution has exec_id name original_exec_id status failure inputs result checkpoints waits"
)
def test_an_execution_of_a_flow_tells_all(client: Client) -> None:
    handle = asking.run(4)
    while handle.status is not ExecutionState.WAITING:
        with suppress(TimeoutError):
            handle.wait(0.05)
    asked = client.executions.get(handle.exec_id)
    assert (asked.result, asked.failure, [one.status for one in asked.waits]) == (None, None, ["pending"])
    client.executions.input(handle.exec_id, value=10)
    assert handle.wait(30) == 6 + 5 + 10

    run = client.executions.get(handle.exec_id)
    assert str(UUID(run.exec_id)) == run.exec_id
    assert (run.name, run.original_exec_id, run.status) == (handle.name, None, ExecutionState.COMPLETED)
    assert (run.failure, run.result) == (None, 21)
    assert isinstance(run.inputs, Mapping)
    assert dict(run.inputs) == {"size": 4, "start": 5}
    assert [one.name for one in run.checkpoints] == ["load", "total"]
    assert [(one.name, one.question, one.answer) for one in run.waits] == [("more", "How many more?", 10)]
    replay = client.executions.replay(run.exec_id, from_="total")
    assert replay.original_exec_id == run.exec_id
    client.executions.cancel(replay)


@pytest.mark.semantics("8", "An execution has exec_id name original_exec_id status failure inputs result")
def test_a_failed_execution_tells_why(client: Client) -> None:
    with pytest.raises(UserCodeError):
        failing("no luck")
    run = next(client.executions.list(flow="failing"))
    assert (run.status, run.result) == ("failed", None)
    assert run.failure is not None
    assert (run.failure.origin, run.failure.message) == (FailureOrigin.USER_CODE, "no luck")
    assert (run.failure.invocation_id, run.failure.attempt) == ("refuse", 1)
    checkpoint = run.checkpoints["refuse"]
    assert (checkpoint.status, list(checkpoint.artifacts)) == ("failed", [])
    with pytest.raises(NotFoundError, match="it is failed"):
        checkpoint.load()


@pytest.mark.semantics(
    "8",
    "a checkpoint name invocation_id call_id status original_call_id stale_inputs artifacts",
    "an artifact id (a uuid.UUID) name load()",
)
def test_checkpoints_and_artifacts_tell_where_they_come_from(client: Client) -> None:
    run = totals()
    loaded, summed = run.checkpoints
    assert (loaded.name, loaded.invocation_id, loaded.status) == ("load", "load", InvocationState.COMPLETED)
    assert (loaded.original_call_id, loaded.stale_inputs) == (None, False)
    assert [(type(one.id), one.name) for one in loaded.artifacts] == [(UUID, "xs"), (UUID, "count")]
    assert list(loaded.artifacts["xs"].load()) == [0, 1, 2, 3]
    assert loaded.artifacts[1].load() == 4
    assert (
        len(
            {
                loaded.call_id,
                summed.call_id,
                *(one.id for one in loaded.artifacts),
                *(one.id for one in summed.artifacts),
            }
        )
        == 5
    )

    created = client.executions.replay(run.exec_id, from_="total", size=5)
    replay = client.executions.wait(created)
    reused, again = replay.checkpoints
    assert (reused.status, reused.stale_inputs) == (InvocationState.REUSED, True)
    assert reused.call_id == reused.original_call_id == loaded.call_id
    assert [one.id for one in reused.artifacts] == [one.id for one in loaded.artifacts]
    assert (again.status, again.stale_inputs, again.original_call_id) == ("completed", False, None)
    assert again.call_id != summed.call_id
    assert client.artifacts.get(again.artifacts[0].id).load() == 6


def test_a_result_is_put_together_of_parts_of_any_kind(client: Client) -> None:
    run = listed(70_000)
    assert run.result.keys() == {"xs", "count", "both", 3}
    assert run.result["xs"].shape == (70_000,)
    assert (run.result["count"], run.result[3], type(run.result["both"])) == (70_000, None, tuple)
    assert run.result["both"][0][0] == 70_000
    assert run.result["both"][1].sum() == run.result["xs"].sum()
    copied = client.executions.import_(client.executions.export(run, embed=True))
    assert copied.result["both"][1].shape == (70_000,)
    nothing = client.executions.replay(run, size=0)
    assert client.executions.wait(nothing).result["xs"].shape == (0,)


@pytest.mark.semantics("8", "Statuses are StrEnums")
def test_statuses_are_texts_and_members(client: Client) -> None:
    run = totals()
    for status in (run.status, next(client.executions.list()).status, run.checkpoints[0].status):
        assert isinstance(status, StrEnum)
        assert status == "completed"
        assert f"{status}" == "completed"
    handle = asking.run(1)
    assert isinstance(handle.status, ExecutionState)
    client.executions.cancel(handle)
    assert handle.status == "cancelled"


@pytest.mark.semantics("8", "Everything heavy is fetched when it is looked at")
def test_values_are_fetched_when_they_are_looked_at(client: Client) -> None:
    """Nothing but the value itself notices that its object is gone."""
    run = listed()
    big = np.ones(20_000)
    replay = client.executions.wait(client.executions.replay(run, skip=["load"], inputs={"size": 4}))
    uploaded = client.artifacts.upload(big, name="ones")
    store = Path(urlsplit(client.reach.storage.limits.url).path)
    shutil.rmtree(store)
    for one in (run.refresh(), replay.refresh(), next(client.executions.list(flow="listed"))):
        assert one.status == "completed"
        assert list(one.inputs) == ["size"]
        loaded = one.checkpoints["load"]
        assert loaded.artifacts["count"].load() == 30_000
        assert loaded.artifacts["xs"].size > 64 * 1024
        with pytest.raises(NotFoundError):
            loaded.artifacts["xs"].load()
    again = client.artifacts.get(uploaded.id)
    assert again.name == "ones"
    with pytest.raises(NotFoundError):
        again.load()
