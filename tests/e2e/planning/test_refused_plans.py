"""SEMANTICS §3: what cannot be planned, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from dalsegno import Client, Execution
from dalsegno.errors import UsageError
from tests.e2e.oracle.tables import Tables
from tests.e2e.planning.programs import fan, fan_flow, ran


@pytest.mark.semantics("3", "Modes, exactly one per request, chosen by presence and not by truth")
@pytest.mark.parametrize(
    "modes",
    [
        {"from_": "load", "skip": []},
        {"from_": [], "skip_successful_steps": True},
        {"skip": [], "skip_successful_steps": True},
    ],
)
def test_two_modes_are_refused_and_so_is_one_that_names_nothing(
    client: Client, run: Execution, modes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        client.executions.plan(run, **modes)
    with pytest.raises(UsageError, match="no invocation is named"):
        client.executions.plan(run, from_=[])


@pytest.mark.semantics(
    "3", "A step can be skipped only if everything upstream of it is skipped too, and only if it succeeded"
)
@pytest.mark.semantics("3", "one that makes a root of a step that is also in skip is UsageError")
def test_what_cannot_be_skipped_is_named_with_why(client: Client, run: Execution) -> None:
    with pytest.raises(UsageError) as refused:
        client.executions.plan(
            run,
            skip=["load", "work", "own", "gather_2", "clean"],
            overrides={"checkpoint.load": [1]},
            step_input_overrides={"own": {"by": 5}},
        )
    for why in (
        "work cannot be skipped: it must re-execute, because it takes an output that 'checkpoint.load' overrides",
        "own cannot be skipped: it must re-execute, because one of its inputs is overridden",
        "gather_2 cannot be skipped: it comes after work_2, which is not skipped",
    ):
        assert why in str(refused.value)
    assert "clean cannot" not in str(refused.value)


@pytest.mark.semantics(
    "3", "The plan is computed and fully validated before anything is created, values are uploaded after"
)
@pytest.mark.semantics("3", "All problems of a request come in one error.", "A refused replay leaves no trace.")
@pytest.mark.parametrize("how", ["executions.replay", "executions.plan", "from code"])
def test_all_problems_come_in_one_error_and_nothing_is_left(
    client: Client, tables: Tables, run: Execution, how: str
) -> None:
    before, stored = tables.counts(), objects(client)
    request: dict[str, Any] = {
        "overrides": {
            "foo": 1, "wait.x": 2, "checkpoint.": 3, "checkpoint.lod": 4, "checkpoint.clean": "x", "checkpoint.pair": 5,
            "checkpoint.load": ["x" * 100_000],
        },
        "step_input_overrides": {"wrk": {"by": 1}, "work": {"bye": 1, "by": "two", "xs": UUID(int=5)}},
        "on_stale": "never",
    }  # fmt: skip
    inputs = {"pth": "x", "by": "fast", "label": "y" * 100_000}
    selectors = ["wokr", "work", " "]
    if how == "from code" and run.kind == "pipeline":
        request = {"step_input_overrides": request["step_input_overrides"]}
    asked: dict[str, Callable[[], object]] = {
        "executions.replay": lambda: client.executions.replay(run, from_=selectors, inputs=inputs, **request),
        "executions.plan": lambda: client.executions.plan(run, from_=selectors, inputs=inputs, **request),
        "flow from code": lambda: fan_flow.replay(run.exec_id, from_=selectors, inputs=inputs, **request),
        "pipeline from code": lambda: fan.replay(pipeline_run=run, skip=selectors, input_overrides=inputs, **request),
    }
    with pytest.raises(UsageError) as refused:
        asked[f"{run.kind} {how}" if how == "from code" else how]()
    told = str(refused.value)
    common = [
        "did you mean 'work'", "names nothing", "did you mean 'path'", "has no input 'bye'", "'two'",
        f"no artifact has the ID {UUID(int=5)}",
        "by",
    ]  # fmt: skip
    more = [
        "write 'checkpoint.foo'", "waits cannot be overridden", "a selector is missing", "did you mean 'load'",
        "pair has several outputs", "'work' is ambiguous", "'never' is none of",
    ]  # fmt: skip
    if run.kind == "pipeline":
        more.append("no invocation takes the output of clean")
    for part in common + (more if "overrides" in request else ["work cannot be skipped: it comes after load"]):
        assert part in told, part
    assert (tables.counts(), objects(client)) == (before, stored)
    assert not ran


@pytest.mark.semantics("3", "All problems of a request come in one error.", "skip=[…] / steps_to_skip")
def test_problems_of_a_run_configuration_come_in_one_error(client: Client, pipeline_run: Execution) -> None:
    configuration = {
        "steps_to_skp": [],
        "steps_to_skip": ["laod"],
        "parameters": {"pth": 1},
        "step_input_overrides": {"own": {"b": 1}},
    }
    with pytest.raises(UsageError) as refused:
        client.replay_pipeline_run(pipeline_run.name, configuration)
    for part in ("did you mean 'steps_to_skip'", "did you mean 'load'", "did you mean 'path'", "did you mean 'by'"):
        assert part in str(refused.value)
    skipped = client.replay_pipeline_run(pipeline_run.name, {"steps_to_skip": ["load", "all:work"]})
    statuses = {one.invocation_id: one.status for one in client.executions.wait(skipped, 60).checkpoints}
    assert [one for one, status in statuses.items() if status == "reused"] == ["load", "work", "work_2", "own"]


def objects(client: Client) -> int:
    """How many objects are in the store."""
    folder = Path(urlsplit(client.reach.storage.limits.url).path)
    return sum(1 for _ in folder.rglob("blobs/*/*"))
