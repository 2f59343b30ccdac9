"""Lanes and priorities: given to a single run or replay, and shown of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client, UsageError, flow, pipeline, step, wait
from dalsegno.cli.app import run
from dalsegno.client.executions import Execution
from dalsegno.lanes import Lane

BULK: dict[str, Any] = {"lane": "bulk", "priority": 7}
REPLAYED: dict[str, Any] = {"lane": Lane.LIVE, "priority": -100}


@step
def load() -> int:
    return 1


@flow
def article(lane: str = "fast") -> int:
    assert lane
    return load()


@flow
def asking() -> None:
    wait(name="answer")


@pipeline
def training() -> int:
    return load()


def standing(execution: Execution) -> tuple[Lane, int]:
    return execution.lane, execution.priority


def test_a_single_run_has_a_lane_and_a_priority(client: Client) -> None:
    first = article.with_options(**BULK).run()
    assert first.wait(30) == 1
    assert standing(first.execution) == (Lane.BULK, 7)
    assert standing(training.with_options(**BULK)()) == (Lane.BULK, 7)
    assert standing(article.run().execution) == (Lane.LIVE, 0)


def test_so_has_one_that_is_started_without_waiting(client: Client) -> None:
    for runnable in (article, training):
        started = client.executions.start(runnable.with_options(name=f"own-{runnable.name}", **BULK))
        assert (started.name, standing(started)) == (f"own-{runnable.name}", (Lane.BULK, 7))
        assert client.executions.wait(started, 30).result == 1


def test_a_started_run_has_a_timeout_of_its_own(client: Client) -> None:
    started = client.executions.start(asking.with_options(timeout=0.2))
    failure = client.executions.wait(started, 30).failure
    assert failure is not None
    assert failure.reason == "EXECUTION_TIMEOUT"


def test_what_is_no_flow_is_not_started(client: Client) -> None:
    nothing: Any = load
    with pytest.raises(UsageError, match="neither a flow nor a pipeline; decorate") as refused:
        client.executions.start(nothing)
    assert refused.value.reason == "NOT_RUNNABLE"


def test_so_has_a_replay_whatever_its_source_had(client: Client) -> None:
    first = article.with_options(**BULK).run()
    first.wait(30)
    source = training.with_options(**BULK)()
    assert standing(article.replay(first.exec_id, **REPLAYED).execution) == (Lane.LIVE, -100)
    assert standing(training.replay(pipeline_run=source.name, **REPLAYED)) == (Lane.LIVE, -100)
    assert standing(client.executions.replay(first.exec_id, **BULK)) == (Lane.BULK, 7)
    assert standing(client.executions.replay(first.exec_id)) == (Lane.LIVE, 0)


def test_a_flow_input_of_that_name_is_reached_by_inputs(client: Client) -> None:
    first = article.run()
    first.wait(30)
    replay = client.executions.replay(first.exec_id, inputs={"lane": "slow"}, lane="bulk")
    assert (replay.inputs["lane"], replay.lane) == ("slow", Lane.BULK)


@pytest.mark.parametrize(
    ("given", "possible"),
    [
        ({"lane": "slow"}, "there are 'live' and 'bulk'"),
        ({"lane": 1}, "there are 'live' and 'bulk'"),
        ({"priority": 101}, "from -100 to 100"),
        ({"priority": -101}, "from -100 to 100"),
        ({"priority": 1.5}, "from -100 to 100"),
        ({"priority": True}, "from -100 to 100"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(given: dict[str, Any], possible: str, client: Client) -> None:
    for refuse in (
        lambda: article.with_options(**given),
        lambda: training.with_options(**given),
        lambda: article.replay("none", **given),
        lambda: training.replay(pipeline_run="none", **given),
        lambda: client.executions.replay("none", **given),
    ):
        with pytest.raises(UsageError, match=possible):
            refuse()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--output", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_line_takes_and_shows_them(
    client: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hurried.py").write_text("from dalsegno import flow\n\n\n@flow\ndef idle() -> int:\n    return 1\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    target, given = str(tmp_path / "hurried.py:idle"), ("--lane", "bulk", "--priority", "9")
    first = said(capsys, "run", target, *given)
    assert (first["lane"], first["priority"]) == ("bulk", 9)
    again = said(capsys, "executions", "replay", first["exec_id"], "--lane", "live", "--priority", "-1")
    got = said(capsys, "executions", "get", again["exec_id"])
    assert (got["lane"], got["priority"]) == ("live", -1)
    for wrong, possible in ((("--lane", "slow"), "'live', 'bulk'"), (("--priority", "101"), "from -100 to 100")):
        assert run(["run", target, *wrong]) == 2
        assert possible in " ".join(capsys.readouterr().err.split())
