"""The command line against an embedded engine: run, look, replay, answer, cancel, with exit codes and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView
from dalsegno.states import ExecutionState
from tests.postgres import reachable_folder

CODE = """
from typing import Literal

from dalsegno import flow, pipeline, step, wait


@step
def research(topic: str) -> str:
    return f"facts about {topic}"


@step
def write_draft(notes: str) -> str:
    return notes.upper()


@step
def publish(draft: str) -> str:
    if "BOMB" in draft:
        raise ValueError("[red]that cannot be printed[/red]")
    return f"published {draft}"


@flow
def article(topic: str) -> str:
    return publish(write_draft(research(topic)))


@pipeline
def chain(topic: str = "chains") -> str:
    return publish(write_draft(research(topic)))


@flow
def asked(topic: str) -> str:
    mood = wait(name="mood", schema=Literal["glad", "sad"], question="Which mood?")
    return f"{write_draft(topic)} {mood}"
"""


class CommandLine:
    """Runs commands, each in a process of its own, in the folder of the user's code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DALSEGNO_ADDRESS"},
            "DALSEGNO_HOME": str(folder / "home"),
            "DALSEGNO_PROJECT": "cli",
            "PYTHONWARNINGS": "error",
        }

    def __call__(self, *arguments: str, code: int = 0, typed: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dalsegno.cli", *arguments],
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
            timeout=100,
        )
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        assert "Traceback (most recent call last)" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        document = json.loads(self(*arguments, "--output", "json", code=code).stdout)
        assert isinstance(document, dict)
        return document


@pytest.fixture(scope="module")
def dalsegno() -> Iterator[CommandLine]:
    """The command, with an engine of the test's own that the first command starts."""
    with reachable_folder() as folder:
        (folder / "cli_flows.py").write_text(CODE)
        command = CommandLine(folder)
        yield command
        command("down")


@pytest.fixture(scope="module")
def recorded(dalsegno: CommandLine) -> dict[str, Any]:
    """An execution of `article`."""
    return dalsegno.json("run", "cli_flows:article", "--args", '{"topic": "kitchens"}')


def test_run_follows_a_flow_and_prints_its_result(dalsegno: CommandLine) -> None:
    done = dalsegno("run", "cli_flows.py:article", "--args", '{"topic": "tables"}')
    assert "published FACTS ABOUT TABLES" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if "completed" in line][1:] == [
        "research",
        "write_draft",
        "publish",
    ]
    assert "write_draft completed" in done.stderr


def test_run_runs_a_pipeline(dalsegno: CommandLine) -> None:
    document = dalsegno.json("run", "cli_flows:chain")
    assert (document["kind"], document["status"]) == ("pipeline", "completed")
    assert document["inputs"] == {"topic": "chains"}
    assert [step["upstream"] for step in document["steps"]] == [[], ["research"], ["write_draft"]]


def test_a_failed_execution_ends_with_1_and_says_why(dalsegno: CommandLine) -> None:
    done = dalsegno("run", "cli_flows:article", "--args", '{"topic": "bomb"}', code=1)
    assert "failed in publish (user code): ValueError: [red]that cannot be printed[/red]" in done.stdout
    document = dalsegno.json("run", "cli_flows:article", "--args", '{"topic": "bomb"}', code=1)
    assert document["failure"]["origin"] == "user_code"
    assert document["failure"]["traceback"]


@pytest.mark.parametrize("arguments", ['{"topc": "x"}', "{}"])
def test_arguments_that_do_not_fit_end_with_2(dalsegno: CommandLine, arguments: str) -> None:
    error = dalsegno.json("run", "cli_flows:article", "--args", arguments, code=2)["error"]
    assert (error["type"], error["reason"]) == ("UsageError", "WRONG_ARGUMENTS")


def test_executions_are_listed_and_shown(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    listed = dalsegno.json("executions", "list", "--flow", "article")["executions"]
    assert recorded["exec_id"] in [one["exec_id"] for one in listed]
    assert recorded["name"] in dalsegno("executions", "list").stdout
    for reference in (recorded["name"], recorded["exec_id"], recorded["exec_id"][-12:]):
        assert dalsegno.json("executions", "get", reference)["result"] == "published FACTS ABOUT KITCHENS"
    graph = dalsegno.json("executions", "graph", recorded["name"])
    assert graph["edges"] == [{"from": "research", "to": "write_draft"}, {"from": "write_draft", "to": "publish"}]
    assert "write_draft ← research" in dalsegno("executions", "graph", recorded["name"]).stdout


def test_what_is_not_there_ends_with_2(dalsegno: CommandLine) -> None:
    assert dalsegno.json("executions", "get", "nobody", code=2)["error"]["type"] == "NotFoundError"
    assert "nobody" in dalsegno("executions", "get", "nobody", code=2).stderr


def test_a_dry_run_draws_the_plan_and_creates_nothing(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    arguments = ["executions", "replay", recorded["name"], "--from", "write_draft", "--dry-run"]
    before = dalsegno.json("executions", "list")
    plan = dalsegno.json(*arguments)
    assert (plan["affected_count"], plan["reused_count"]) == (2, 1)
    assert [(step["invocation_id"], step["reruns"], step["root"]) for step in plan["steps"]] == [
        ("research", False, False),
        ("write_draft", True, True),
        ("publish", True, False),
    ]
    text = dalsegno(*arguments).stdout
    assert "2 of 3 steps re-run, 1 reused" in text
    assert dalsegno.json("executions", "list") == before


def test_a_replay_with_an_override_is_followed(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    overrides = '{"checkpoint.research": "other facts"}'
    document = dalsegno.json(
        *("executions", "replay", recorded["name"], "--from", "write_draft", "--overrides", overrides, "--wait")
    )
    assert document["result"] == "published OTHER FACTS"
    assert document["original_exec_id"] == recorded["exec_id"]
    states = {step["invocation_id"]: step["status"] for step in document["steps"]}
    assert states == {"research": "reused", "write_draft": "completed", "publish": "completed"}
    listed = dalsegno.json("executions", "list", "--replays-of", recorded["name"])["executions"]
    assert document["exec_id"] in [one["exec_id"] for one in listed]


def test_a_replay_that_fails_ends_with_1(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    overrides = '{"checkpoint.write_draft": "BOMB"}'
    done = dalsegno("executions", "replay", recorded["name"], "--overrides", overrides, "--wait", code=1)
    assert "failed in publish" in done.stdout


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--from", "reserch"], "research"),
        (["--overrides", '{"research": 1}'], "checkpoint."),
        (["--from", "research", "--skip", "research"], "exclude each other"),
        (["--args", '{"topc": 1}'], "topic"),
        (["--input-overrides", '{"publish": {"drft": 1}}'], "draft"),
        (["--from", "publish", "--expect-plan", "abc"], "plan"),
    ],
)
def test_a_replay_that_makes_no_sense_ends_with_2(
    dalsegno: CommandLine, recorded: dict[str, Any], options: list[str], part: str
) -> None:
    done = dalsegno("executions", "replay", recorded["name"], *options, code=2)
    assert done.stderr.startswith("error: ")
    assert part in done.stderr


@pytest.fixture(scope="module")
def worker(dalsegno: CommandLine) -> Iterator[None]:
    """A worker for the code, started by its command and ended by SIGTERM."""
    command = [sys.executable, "-m", "dalsegno.cli", "worker", "cli_flows", "--processes", "1"]
    with subprocess.Popen(command, cwd=dalsegno.folder, env=dalsegno.environment) as process:
        yield
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def session(dalsegno: CommandLine, worker: None) -> Iterator[Session]:
    """A look at the engine from here."""
    with Session(str(dalsegno.json("status")["address"]), "cli") as opened:
        yield opened


def test_a_wait_is_answered_with_a_value(dalsegno: CommandLine, session: Session) -> None:
    execution = _waiting(dalsegno, session)
    refused = dalsegno.json("executions", "input", execution, "--value", '"angry"', code=2)["error"]
    assert refused["type"] == "WaitValidationError"
    answered = dalsegno.json("executions", "input", execution, "--value", '"glad"')
    assert answered["wait"]["status"] == "answered"
    assert _finished(session, execution).result == "ODDS glad"


def test_a_wait_is_answered_by_a_person_who_is_asked_again(dalsegno: CommandLine, session: Session) -> None:
    execution = _waiting(dalsegno, session)
    done = dalsegno("executions", "input", execution, "--interactive", typed="angry\nsad\n")
    assert done.stderr.count("Which mood?") == 1
    assert "The wait is still open" in done.stderr
    assert "mood is answered" in done.stdout
    again = dalsegno("executions", "input", execution, "--value", '"sad"', code=2)
    assert again.stderr.startswith("error: ")


def test_an_execution_is_cancelled(dalsegno: CommandLine, session: Session) -> None:
    execution = _waiting(dalsegno, session)
    assert dalsegno.json("executions", "cancel", execution, "--reason", "enough")["status"] == "cancelled"
    assert "cancelled" in dalsegno("executions", "get", execution).stdout


def _waiting(dalsegno: CommandLine, session: Session) -> str:
    """Start a flow that asks something, and return its name once it does."""
    started = dalsegno.json("run", "cli_flows:asked", "--args", '{"topic": "odds"}', "--no-wait")
    for event in session.watch(started["exec_id"]):
        if isinstance(event, ExecutionView) and event.state is ExecutionState.WAITING:
            return str(started["name"])
    raise AssertionError("it ended without a question")


def _finished(session: Session, execution: str) -> ExecutionView:
    for _ in session.watch(execution):
        pass
    return session.execution(execution)
