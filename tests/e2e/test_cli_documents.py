"""``--output json`` as programs read it: one document on stdout, whatever the code of users prints; and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView
from dalsegno.states import ExecutionState
from tests.postgres import reachable_folder

CODE = """
import os
import sys

from dalsegno import flow, pipeline, step, wait

print("imported")
os.write(1, b"from below Python, at import\\n")


@step
def speak(word: str) -> str:
    print("speaking")
    os.write(1, b"from below Python\\n")
    os.system("echo from a process of its own")
    if word == "nothing" and not os.path.exists("mended"):
        raise ValueError("nothing to say")
    return word.upper()


@flow
def talk(word: str) -> str:
    print("in the body")
    return speak(word)


@pipeline
def recite(word: str = "so") -> str:
    print("traced")
    return speak(word)


@flow
def asking() -> str:
    return wait(name="word", schema=str)
"""


@dataclass(frozen=True)
class Commands:
    """Runs commands as processes, as programs do."""

    folder: Path

    def __call__(self, *arguments: str, code: int = 0, typed: str = "", **environment: str) -> dict[str, Any]:
        """Run a command for its one document."""
        done = self.process([*arguments, "--output", "json"], typed, **environment)
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.startswith("{")
        document = json.loads(done.stdout)  # which refuses a second one
        assert isinstance(document, dict)
        return document

    def process(self, arguments: list[str], typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dalsegno.cli", *arguments],
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**self.environment, **environment},
            timeout=100,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name != "DALSEGNO_ADDRESS"},
            "DALSEGNO_HOME": str(self.folder / "home"),
            "DALSEGNO_PROJECT": "documents",
            "PYTHONWARNINGS": "error",
        }


@pytest.fixture(scope="module")
def dalsegno() -> Iterator[Commands]:
    with reachable_folder() as folder:
        (folder / "talking.py").write_text(CODE)
        commands = Commands(folder)
        yield commands
        commands("down")


@pytest.mark.timeout(400)  # a process for each command
@pytest.mark.semantics("10", "--output json on every command prints one JSON document on stdout and nothing else there")
def test_every_command_prints_one_document(dalsegno: Commands, tmp_path: Path) -> None:
    assert dalsegno("up", "--background")["address"]
    assert dalsegno("status")["running"]
    talked = dalsegno("run", "talking:talk", "--args", '{"word": "hello"}')
    assert talked["result"] == "HELLO"
    recited = dalsegno("run", "talking.py:recite")
    assert (recited["kind"], recited["result"]) == ("pipeline", "SO")
    started = dalsegno("run", "talking:talk", "--args", '{"word": "later"}', "--no-wait")
    assert started["status"] in ("pending", "running")
    of_executions = {
        "list": [],
        "get": [talked["name"]],
        "graph": [talked["name"]],
        "checkpoint": [talked["name"], "speak"],
        "logs": [talked["name"]],
        "cancel": [started["name"]],
        "export": [talked["name"]],
    }
    shown = {name: dalsegno("executions", name, *arguments) for name, arguments in of_executions.items()}
    assert shown["get"]["steps"][0]["invocation_id"] == "speak"
    assert shown["cancel"]["status"] == "cancelled"
    record = tmp_path / "record.json"
    record.write_text(json.dumps(shown["export"]))
    assert dalsegno("executions", "import", str(record))["result"] == "HELLO"
    assert dalsegno("executions", "export", talked["name"], "--file", str(record))["file"] == str(record)
    replay = ["executions", "replay", recited["name"], "--from", "speak", "--rerun-changed-code"]
    assert dalsegno(*replay, "--dry-run")["affected_count"] == 1
    assert dalsegno(*replay, "--wait")["result"] == "SO"
    assert dalsegno(*replay)["original_exec_id"] == recited["exec_id"]


@pytest.mark.timeout(400)  # a process for each command
@pytest.mark.semantics("10", "--output json on every command prints one JSON document on stdout and nothing else there")
def test_commands_that_let_an_execution_go_on_print_one_document(dalsegno: Commands) -> None:
    failed = dalsegno("run", "talking:talk", "--args", '{"word": "nothing"}', code=1)
    assert failed["failure"]["message"] == "nothing to say"
    again = dalsegno("executions", "retry", failed["exec_id"], "--wait", code=1)
    assert (again["exec_id"], again["status"]) == (failed["exec_id"], "failed")
    (dalsegno.folder / "mended").touch()
    assert dalsegno("executions", "retry", failed["exec_id"], "--wait")["result"] == "NOTHING"
    (dalsegno.folder / "mended").unlink()
    command = [sys.executable, "-m", "dalsegno.cli", "worker", "talking", "--processes", "1", "--output", "json"]
    with subprocess.Popen(
        command, cwd=dalsegno.folder, env=dalsegno.environment, stdout=subprocess.PIPE, text=True
    ) as worker:
        for answer in (["input", "--value", '"yes"'], ["input", "--interactive"], ["abort"]):
            asked = dalsegno("run", "talking:asking", "--no-wait")["name"]
            _await_the_question(dalsegno, asked)
            verb, *options = answer
            told = dalsegno("executions", verb, asked, *options, typed="yes\n")
            assert told.get("status") == "cancelled" or told["wait"]["status"] == "answered"
            if verb == "abort":
                assert dalsegno("executions", "resume", asked, code=2)["error"]["type"] == "StateError"
        worker.terminate()
        assert worker.stdout is not None
        document = json.loads(worker.stdout.read())  # up to its end
        assert document["pid"] == worker.pid


def _await_the_question(dalsegno: Commands, execution: str) -> None:
    address = dalsegno("status")["address"]
    with Session(address, "documents") as session:
        for event in session.watch(execution):
            if isinstance(event, ExecutionView) and event.state is ExecutionState.WAITING:
                return
    raise AssertionError("it ended without a question")


@pytest.mark.timeout(400)
@pytest.mark.semantics("10", "Exit codes: 0 done, 1 the execution failed, 2 usage, 3 backend unreachable")
@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["run", "talking:talk", "--args", '{"word": "a"}']),
        (1, ["run", "talking:talk", "--args", '{"word": "nothing"}']),
        (2, ["run", "talking:talk", "--args", '{"wrd": "a"}']),
        (2, ["run", "talking:nothing"]),
        (2, ["executions", "get", "nobody"]),
        (2, ["executions", "lst"]),
        (2, ["executions", "import", "nowhere.json"]),
        (3, ["executions", "list", "--address", "127.0.0.1:1"]),
        (3, ["executions", "list", "--address", "no-such-planner.invalid:1"]),
        (3, ["planner", "--database-url", "postgresql://nobody@127.0.0.1:1/x", "--listen", "192.0.2.1:7317"]),
    ],
)
def test_exit_codes(dalsegno: Commands, code: int, arguments: list[str]) -> None:
    document = dalsegno(*arguments, code=code)
    assert ("error" in document) == (code > 1 and arguments[0] != "planner")
