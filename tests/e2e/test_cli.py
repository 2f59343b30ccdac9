"""The command line against an embedded engine: run, look, replay, answer, cancel, with exit codes and JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from dalsegno.cli.app import run
from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView
from dalsegno.states import ExecutionState
from tests.postgres import reachable_folder

PROJECT = "cli"
CODE = """
from pathlib import Path
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


@step(retries=1, retry_delay=0.01, retry_jitter=0)
def fragile() -> str:
    tried = Path(__file__).with_suffix(".tried")
    if not tried.exists():
        tried.touch()
        raise ValueError("[red]not yet[/red]")
    return "at last"


@flow
def trying() -> str:
    return fragile() + fragile()


@flow
def asked(topic: str) -> str:
    mood = wait(name="mood", schema=Literal["glad", "sad"], question="Which mood?")
    return f"{write_draft(topic)} {mood}"
"""


@dataclass(frozen=True)
class Printed:
    """What a command printed."""

    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document


class CommandLine:
    """Runs commands: as processes, in the folder of the user's code, or here, where they only talk to the planner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DALSEGNO_ADDRESS"},
            "DALSEGNO_HOME": str(folder / "home"),
            "DALSEGNO_PROJECT": PROJECT,
            "PYTHONWARNINGS": "error",
        }

    def __call__(self, *arguments: str, code: int = 0, typed: str = "") -> Printed:
        """Run a command as users do; the embedded engine starts if need be, and the process runs its own code."""
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
        return _checked(arguments, done.returncode, code, Printed(done.stdout, done.stderr))

    def look(self, *arguments: str, code: int = 0) -> Printed:
        """Run a command in this process, against the planner of the engine."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            ended = run([*arguments, "--address", self.address, "--project", PROJECT])
        return _checked(arguments, ended, code, Printed(out.getvalue(), err.getvalue()))

    def look_json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        return self.look(*arguments, "--output", "json", code=code).document

    @cached_property
    def address(self) -> str:
        return str(self("status", "--output", "json").document["address"])


def _checked(arguments: Sequence[str], ended: int, expected: int, printed: Printed) -> Printed:
    assert ended == expected, f"{arguments}\n{printed.stdout}\n{printed.stderr}"
    assert "Traceback (most recent call last)" not in printed.stderr
    return printed


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
    """An execution of `article`, as its run printed it."""
    return dalsegno("run", "cli_flows:article", "--args", '{"topic": "kitchens"}', "--output", "json").document


def test_run_follows_a_flow_and_prints_its_result(dalsegno: CommandLine) -> None:
    done = dalsegno("run", "cli_flows.py:article", "--args", '{"topic": "tables"}')
    assert "published FACTS ABOUT TABLES" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row[1:2] == ["completed"]][1:] == ["research", "write_draft", "publish"]
    assert "write_draft completed" in done.stderr


def test_run_runs_a_pipeline(dalsegno: CommandLine) -> None:
    document = dalsegno("run", "cli_flows:chain", "--name", "first-chain", "--output", "json").document
    assert document["name"] == "first-chain"
    assert (document["kind"], document["status"]) == ("pipeline", "completed")
    assert document["inputs"] == {"topic": "chains"}
    assert [step["upstream"] for step in document["steps"]] == [[], ["research"], ["write_draft"]]


def test_a_failed_execution_ends_with_1_and_says_why(dalsegno: CommandLine) -> None:
    done = dalsegno("run", "cli_flows:article", "--args", '{"topic": "bomb"}', code=1)
    assert "failed in publish (user code): ValueError: [red]that cannot be printed[/red]" in done.stdout
    newest = dalsegno.look_json("executions", "list", "--state", "failed", "--limit", "1")["executions"][0]
    failure = dalsegno.look_json("executions", "get", newest["exec_id"])["failure"]
    assert (failure["origin"], failure["invocation_id"]) == ("user_code", "publish")
    assert "that cannot be printed" in failure["traceback"]


def test_arguments_that_do_not_fit_end_with_2(dalsegno: CommandLine) -> None:
    arguments = ["run", "cli_flows:article", "--args", '{"topc": "x"}', "--output", "json"]
    error = dalsegno(*arguments, code=2).document["error"]
    assert (error["type"], error["reason"]) == ("UsageError", "WRONG_ARGUMENTS")


def test_executions_are_listed_and_shown(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    listed = dalsegno.look_json("executions", "list", "--flow", "article")["executions"]
    assert recorded["exec_id"] in [one["exec_id"] for one in listed]
    assert recorded["name"] in dalsegno.look("executions", "list").stdout
    for reference in (recorded["name"], recorded["exec_id"], recorded["exec_id"][-12:]):
        assert dalsegno.look_json("executions", "get", reference)["result"] == "published FACTS ABOUT KITCHENS"
    graph = dalsegno.look_json("executions", "graph", recorded["name"])
    assert graph["edges"] == [{"from": "research", "to": "write_draft"}, {"from": "write_draft", "to": "publish"}]
    assert "write_draft ← research" in dalsegno.look("executions", "graph", recorded["name"]).stdout


def test_a_call_is_shown_with_its_outputs_and_the_attempts_that_failed(dalsegno: CommandLine) -> None:
    tried = dalsegno("run", "cli_flows:trying", "--output", "json").document
    (call,) = dalsegno.look_json("executions", "checkpoint", tried["name"], "invocation:fragile")["checkpoints"]
    assert (call["status"], call["attempt"]) == ("completed", 2)
    (output,) = call["outputs"]
    assert (output["name"], output["value"], output["codec"]) == ("output", "at last", "json")
    (attempt,) = call["failed_attempts"]
    assert (attempt["attempt"], attempt["failure"]["message"]) == (1, "[red]not yet[/red]")
    assert "not yet" in attempt["failure"]["traceback"]
    shown = dalsegno.look("executions", "checkpoint", tried["name"], "all:fragile").stdout
    assert f"artifact {output['artifact_id']}" in shown
    assert "attempt 1 failed (user code): ValueError: [red]not yet[/red]" in shown
    assert "fragile_2  completed" in shown
    overrides = json.dumps({"checkpoint.fragile_2": {"$artifact": output["artifact_id"]}})
    plan = dalsegno.look_json("executions", "replay", tried["name"], "--overrides", overrides, "--dry-run")
    assert plan["reused_count"] == 2
    unknown = dalsegno.look("executions", "checkpoint", tried["name"], "fragil", code=2).stderr
    assert "did you mean 'fragile' or 'fragile_2'?" in unknown


def test_what_is_not_there_ends_with_2(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    assert dalsegno.look_json("executions", "get", "nobody", code=2)["error"]["type"] == "NotFoundError"
    assert "nobody" in dalsegno.look("executions", "get", "nobody", code=2).stderr


@pytest.mark.semantics("3", "The CLI's --dry-run draws it.")
def test_a_dry_run_draws_the_plan_and_creates_nothing(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    arguments = ["executions", "replay", recorded["name"], "--from", "write_draft", "--dry-run"]
    before = dalsegno.look_json("executions", "list")
    plan = dalsegno.look_json(*arguments)
    assert (plan["affected_count"], plan["reused_count"]) == (2, 1)
    assert [(step["invocation_id"], step["reruns"], step["root"]) for step in plan["steps"]] == [
        ("research", False, False),
        ("write_draft", True, True),
        ("publish", True, False),
    ]
    assert "2 of 3 steps re-run, 1 is reused" in dalsegno.look(*arguments).stdout
    assert dalsegno.look_json("executions", "list") == before


EDITED = """
from dalsegno import flow, step

@step
def first() -> int:
    return 1

@step
def second(number: int) -> int:
    return number + 1

@flow
def counts() -> int:
    return second(first())
"""


@pytest.mark.semantics("3", "Warnings, never silence")
def test_a_dry_run_warns_of_code_that_has_changed_here(dalsegno: CommandLine) -> None:
    module = dalsegno.folder / "cli_edited.py"
    module.write_text(EDITED)
    name = dalsegno("run", "cli_edited:counts", "--output", "json").document["name"]
    again = ["executions", "replay", name, "--from", "second"]
    assert "warning" not in dalsegno(*again, "--dry-run").stdout
    module.write_text(EDITED.replace("return 1", "return 2"))
    warning = "warning: first: reused, though the code of the step has changed since"
    for how in ("--dry-run", "--wait"):
        assert warning in dalsegno(*again, how).stdout.splitlines()


def test_a_replay_with_an_override_is_followed(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    overrides = '{"checkpoint.research": "other facts"}'
    arguments = ["executions", "replay", recorded["name"], "--from", "write_draft", "--overrides", overrides]
    document = dalsegno(*arguments, "--wait", "--output", "json").document
    assert document["result"] == "published OTHER FACTS"
    assert document["original_exec_id"] == recorded["exec_id"]
    states = {step["invocation_id"]: step["status"] for step in document["steps"]}
    assert states == {"research": "reused", "write_draft": "completed", "publish": "completed"}
    listed = dalsegno.look_json("executions", "list", "--replays-of", recorded["name"])["executions"]
    assert document["exec_id"] in [one["exec_id"] for one in listed]


def test_a_replay_that_fails_ends_with_1(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    overrides = '{"checkpoint.write_draft": "BOMB"}'
    done = dalsegno("executions", "replay", recorded["name"], "--overrides", overrides, "--wait", code=1)
    assert "failed in publish" in done.stdout


def test_a_replay_that_nobody_waits_for_says_who_could_run_it(dalsegno: CommandLine, recorded: dict[str, Any]) -> None:
    done = dalsegno.look("executions", "replay", recorded["name"], "--from", "publish")
    name = done.stdout.split()[0]
    assert dalsegno.look_json("executions", "cancel", name, "--reason", "enough")["status"] == "cancelled"
    assert "cancelled" in dalsegno.look("executions", "get", name).stdout


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
    done = dalsegno.look("executions", "replay", recorded["name"], *options, code=2)
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
    with Session(dalsegno.address, PROJECT) as opened:
        yield opened


@pytest.mark.semantics("6", "The CLI takes --value JSON; with one pending wait it needs no name")
def test_a_wait_is_answered(dalsegno: CommandLine, session: Session) -> None:
    """By a person who is asked again after a bad answer, and with a value."""
    for answer in (_interactively, _with_a_value):
        started = dalsegno("run", "cli_flows:asked", "--args", '{"topic": "odds"}', "--no-wait", "--output", "json")
        execution = started.document["name"]
        _await_question(session, execution)
        assert "Which mood?" in dalsegno.look("executions", "get", execution).stdout
        answer(dalsegno, execution)
        for _ in session.watch(execution):
            pass
        assert session.execution(execution).result == "ODDS sad"
        again = dalsegno.look("executions", "input", execution, "--value", '"sad"', code=2)
        assert again.stderr.rstrip().endswith("is completed, and no wait is pending")


def _interactively(dalsegno: CommandLine, execution: str) -> None:
    ended = dalsegno("executions", "input", execution, "--interactive", typed="angry\n", code=2)
    assert "standard input ended before mood was answered; it stays open" in ended.stderr
    done = dalsegno("executions", "input", execution, "--interactive", typed="angry\nsad\n")
    assert done.stderr.count("Which mood?") == 1
    assert "The wait is still open" in done.stderr
    assert "mood is answered" in done.stdout


def _with_a_value(dalsegno: CommandLine, execution: str) -> None:
    refused = dalsegno.look_json("executions", "input", execution, "--value", '"angry"', code=2)["error"]
    assert refused["type"] == "WaitValidationError"
    answered = dalsegno.look_json("executions", "input", execution, "--value", '"sad"')
    assert answered["wait"]["status"] == "answered"


def _await_question(session: Session, execution: str) -> None:
    for event in session.watch(execution):
        if isinstance(event, ExecutionView) and event.state is ExecutionState.WAITING:
            return
    raise AssertionError("it ended without a question")
