"""How commands end: exit codes, errors for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dalsegno.cli.app import app, output_of, run
from dalsegno.cli.command_name import command_name
from dalsegno.cli.exit_codes import ExitCode, exit_code_of
from dalsegno.cli.reporting import OutputFormat, error_document, hung
from dalsegno.errors import (
    AuthError,
    BackendError,
    ContextError,
    DalsegnoError,
    DivergenceError,
    DivergenceKind,
    ExecutionError,
    NotFoundError,
    Problem,
    StateError,
    UsageError,
    UserCodeError,
    WaitTimeoutError,
    WaitValidationError,
)

NOBODY = "127.0.0.1:1"
GIVEN = ["--processes", "1", "--slots", "2", "--bodies", "9", "--isolation", "thread", "--grace", "60.0"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine's folder of the test's own, and no planner anywhere else."""
    monkeypatch.setenv("DALSEGNO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DALSEGNO_ADDRESS", raising=False)
    monkeypatch.delenv("DALSEGNO_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserCodeError("x"), ExitCode.EXECUTION_FAILED),
        (DivergenceError("x", kind=DivergenceKind.EXTRA_CALL), ExitCode.EXECUTION_FAILED),
        (ExecutionError("x"), ExitCode.EXECUTION_FAILED),
        (WaitTimeoutError("x"), ExitCode.EXECUTION_FAILED),
        (UsageError("x"), ExitCode.USAGE),
        (WaitValidationError("x"), ExitCode.USAGE),
        (StateError("x"), ExitCode.USAGE),
        (NotFoundError("x"), ExitCode.USAGE),
        (ContextError("x"), ExitCode.USAGE),
        (AuthError("x"), ExitCode.USAGE),
        (BackendError("x"), ExitCode.BACKEND),
    ],
)
def test_every_error_has_its_exit_code(error: DalsegnoError, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_an_error_is_a_document_with_all_its_problems() -> None:
    problem = Problem('overrides["checkpoint.fit"]', "no such checkpoint")
    error = UsageError("2 problems", reason="INVALID_REPLAY", fields={"a": "b"}, problems=[problem])
    assert error_document(error) == {
        "error": {
            "type": "UsageError",
            "reason": "INVALID_REPLAY",
            "message": "2 problems",
            "problems": [{"field": 'overrides["checkpoint.fit"]', "description": "no such checkpoint"}],
            "fields": {"a": "b"},
        }
    }


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["executions", "list"], OutputFormat.TEXT),
        (["executions", "list", "--output", "json"], OutputFormat.JSON),
        (["executions", "list", "--output=json"], OutputFormat.JSON),
        (["executions", "list", "-o", "json"], OutputFormat.JSON),
        (["-ojson"], OutputFormat.JSON),
        (["run", "--", "--output", "json"], OutputFormat.TEXT),
        (["--output"], OutputFormat.TEXT),
    ],
)
def test_the_output_is_known_before_the_command_line_is_parsed(arguments: list[str], output: OutputFormat) -> None:
    assert output_of(arguments) is output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["exections"], "Did you mean 'executions'?"),
        (["executions", "get"], "Missing argument 'ID'"),
        (["executions", "list", "--nope"], "No such option: --nope"),
        (["executions", "list", "--state", "happy"], "happy"),
        (["executions", "replay", "x", "--args", "{"], "--args is not JSON: line 1, column 2"),
        (["executions", "input", "x"], "give the answer with --value JSON"),
        (["run", "nowhere_to_be_found:x"], "no module 'nowhere_to_be_found'"),
        (["worker", "x", "--slots", "0"], "--slots"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DALSEGNO_ADDRESS", NOBODY)
    assert run(arguments) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert part in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "arguments", [["executions", "get"], ["nonsense"], ["executions", "replay", "x", "--args", "{"]]
)
def test_with_json_an_error_is_the_one_document(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--output", "json"]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["type"] == "UsageError"
    assert printed.err == ""


def test_a_point_that_takes_several_lines_goes_on_under_its_text() -> None:
    refusal = "error: it is refused\n  - from: no step is 'fti'; did you mean 'fit'?\n\n  {\"a\":   b}\n          ^"
    assert hung(refusal, 30).split("\n") == [
        "error: it is refused",
        "  - from: no step is 'fti';",
        "    did you mean 'fit'?",
        "",
        '  {"a":   b}',
        "          ^",
    ]
    assert hung("in /a/very/long/path/that-must-stay-whole", 12) == "in\n/a/very/long/path/that-must-stay-whole"


def test_a_backend_that_cannot_be_reached_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["executions", "get", "x", "--address", NOBODY, "--output", "json"]
    assert run(arguments) == ExitCode.BACKEND
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "BackendError"
    assert NOBODY in error["message"]


def test_the_traceback_is_shown_to_who_asks_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DALSEGNO_DEBUG", "1")
    assert run(["run", "nowhere_to_be_found:x"]) == ExitCode.USAGE
    assert "Traceback" in capsys.readouterr().err


def test_the_engine_that_does_not_run_is_said_not_to(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(["status", "--output", "json"]) == ExitCode.DONE
    status = json.loads(capsys.readouterr().out)
    assert (status["running"], status["home"]) == (False, str(folder / "home"))
    assert run(["down"]) == ExitCode.DONE
    assert "No engine was running" in capsys.readouterr().out


def test_help_fits_a_terminal_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == ExitCode.DONE
    text = capsys.readouterr().out
    for command in ("demo", "up", "down", "planner", "worker", "run", "executions"):
        assert f"│ {command} " in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith("dalsegno ")


def test_the_tour_names_the_extra_that_brings_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert run(["demo"]) == ExitCode.USAGE
    assert "pip install 'dalsegno[demo]'" in capsys.readouterr().err


def test_a_command_that_the_shell_does_not_find_is_named_by_its_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "bin" / "dalsegno"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(program.parent))
    assert command_name() == "dalsegno"
    monkeypatch.setenv("PATH", str(folder))
    assert command_name() == "bin/dalsegno"
    monkeypatch.setattr(sys, "argv", ["-m"])
    assert command_name() == "dalsegno"


def test_the_command_starts_without_what_it_may_not_need() -> None:
    code = (
        "import sys, dalsegno.cli.app; "
        "print([name for name in ('grpc', 'rich', 'asyncio', 'numpy', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_command_whose_reader_has_ended_ends_as_quietly_as_others_do(output: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody_reads:
        command = [sys.executable, "-m", "dalsegno.cli", "status", "--output", output]
        done = subprocess.run(command, stdout=nobody_reads, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (ExitCode.NOBODY_READS, b"")


@pytest.mark.parametrize("command", ["planner", "worker"])
def test_a_process_that_is_started_announces_itself_as_the_one_document(command: str, tmp_path: Path) -> None:
    worker = ["worker", "nowhere_to_be_found", "--address", NOBODY, *GIVEN]
    arguments = {"planner": ["planner"], "worker": worker}[command]
    environment = {name: value for name, value in os.environ.items() if name != "DALSEGNO_DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "dalsegno.cli", *arguments, "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        timeout=60,
    )
    document = json.loads(done.stdout)
    assert document["command"][1:3] == ["-m", {"planner": "dalsegno_planner", "worker": "dalsegno_executor"}[command]]
    assert done.returncode != 0  # the exit code of the process that it became
    assert done.stderr
    assert command == "planner" or document["command"][-len(GIVEN) :] == GIVEN


def test_every_command_has_the_option_for_documents() -> None:
    def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*path, name))
            else:
                yield " ".join((*path, name)), command

    found = dict(commands(typer.main.get_command(app)))
    contract = "demo up down planner worker run"
    listed = "list get graph logs cancel retry import export replay input"
    assert {*contract.split(), *(f"executions {name}" for name in listed.split())} <= found.keys()
    for name, command in found.items():
        assert any("--output" in option.opts for option in command.params), name
