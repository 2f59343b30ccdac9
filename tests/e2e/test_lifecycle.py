"""What failed is mended and retried in place, by the command line on the embedded engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView
from dalsegno.states import ExecutionState
from tests.e2e.test_cli import PROJECT, CommandLine
from tests.postgres import reachable_folder

CODE = """
from pathlib import Path

from dalsegno import flow, pipeline, step, wait


def note(name):
    with Path("ran").open("a") as ran:
        ran.write(name + " ")


@step
def load() -> int:
    note("load")
    return 1


@step
def fragile(number: int) -> int:
    note("fragile")
    if not Path("mended").exists():
        raise RuntimeError("not mended yet")
    return number + 1


@step
def report(number: int) -> str:
    note("report")
    return f"number {number}"


@pipeline
def training() -> str:
    return report(fragile(load()))


@flow
def article() -> str:
    return report(fragile(load()))


@flow
def steady() -> str:
    number = load()
    return report(number)


@flow
def asks() -> bool:
    load()
    return wait(name="approve", question="Go on?")
"""


@pytest.fixture(scope="module")
def dalsegno() -> Iterator[CommandLine]:
    """The command, with an engine of the test's own that the first command starts."""
    with reachable_folder() as folder:
        command = CommandLine(folder)
        yield command
        command("down")


@pytest.fixture
def written(dalsegno: CommandLine) -> CommandLine:
    """The command where the code is as above, nothing is mended and nothing has run."""
    (dalsegno.folder / "lifecycle_flows.py").write_text(CODE)
    (dalsegno.folder / "mended").unlink(missing_ok=True)
    (dalsegno.folder / "ran").write_text("")
    return dalsegno


def ran(dalsegno: CommandLine) -> list[str]:
    return (dalsegno.folder / "ran").read_text().split()


def run(dalsegno: CommandLine, name: str, code: int) -> dict[str, Any]:
    return dalsegno("run", f"lifecycle_flows:{name}", "--output", "json", code=code).document


def retry(dalsegno: CommandLine, execution: str, code: int = 0) -> dict[str, Any]:
    return dalsegno("executions", "retry", execution, "--wait", "--output", "json", code=code).document


@pytest.mark.parametrize("name", ["training", "article"])
def test_what_failed_is_mended_and_retried(written: CommandLine, name: str) -> None:
    failed = run(written, name, 1)
    still = retry(written, failed["name"], 1)
    assert (still["status"], still["failure"]["message"]) == ("failed", "not mended yet")
    (written.folder / "mended").touch()
    done = retry(written, failed["name"])
    assert (done["exec_id"], done["status"], done["result"]) == (failed["exec_id"], "completed", "number 2")
    assert ran(written) == ["load", "fragile", "fragile", "fragile", "report"]
    error = retry(written, failed["name"], 2)["error"]
    assert (error["type"], error["reason"]) == ("StateError", "EXECUTION_FINISHED")
    assert "replay it" in error["message"]


@pytest.mark.parametrize("name", ["training", "article"])
def test_other_code_than_failed_retries(written: CommandLine, name: str) -> None:
    failed = run(written, name, 1)
    (written.folder / "lifecycle_flows.py").write_text(CODE.replace('if not Path("mended").exists()', "if False"))
    assert retry(written, failed["name"])["result"] == "number 2"
    assert ran(written) == ["load", "fragile", "fragile", "report"]


@pytest.mark.semantics("7", "after a divergence too, once the code is mended")
def test_a_flow_that_diverged_is_retried_with_mended_code(written: CommandLine) -> None:
    source = run(written, "steady", 0)
    module = written.folder / "lifecycle_flows.py"
    module.write_text(CODE.replace("    number = load()\n", "    number = fragile(0)\n"))
    replay = ["executions", "replay", source["name"], "--from", "report", "--wait", "--output", "json"]
    diverged = written(*replay, code=1).document
    assert diverged["failure"]["origin"] == "divergence"
    module.write_text(CODE)
    done = retry(written, diverged["name"])
    assert (done["exec_id"], done["result"]) == (diverged["exec_id"], "number 1")
    assert [(one["invocation_id"], one["status"]) for one in done["steps"]] == [
        ("load", "reused"),
        ("report", "completed"),
    ]
    assert ran(written) == ["load", "report", "report"]


def test_a_wait_is_aborted_and_asked_again(written: CommandLine) -> None:
    worker = [sys.executable, "-m", "dalsegno.cli", "worker", "lifecycle_flows", "--processes", "1"]
    name = written("run", "lifecycle_flows:asks", "--no-wait", "--output", "json").document["name"]
    with (
        subprocess.Popen(worker, cwd=written.folder, env=written.environment) as process,
        Session(written.address, PROJECT) as session,
    ):
        await_state(session, name, ExecutionState.WAITING)
        assert "approve" in written.look("executions", "resume", name, code=2).stderr
        aborted = written.look_json("executions", "abort", name, "--wait", "approve")
        assert (aborted["status"], "aborted by" in aborted["failure"]["message"]) == ("cancelled", True)
        assert "runs again" in written.look("executions", "retry", name).stdout
        await_state(session, name, ExecutionState.WAITING)
        written.look("executions", "input", name, "--value", "true")
        await_state(session, name, ExecutionState.COMPLETED)
        assert session.execution(name).result is True
        process.terminate()
        assert process.wait(60) == 0
    assert ran(written) == ["load"]


def await_state(session: Session, execution: str, state: ExecutionState) -> None:
    for event in session.watch(execution):
        if isinstance(event, ExecutionView) and session.execution(execution).state is state:
            return
    assert session.execution(execution).state is state
