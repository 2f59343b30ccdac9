"""What user code writes, from where it runs to whoever reads it: on workers, and in a script of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dalsegno import StateError
from dalsegno.client.logs import LogLine
from dalsegno.local.home import HOME_VARIABLE
from tests.e2e import logged_flows as code
from tests.e2e.test_worker import Place, Process
from tests.postgres import reachable_folder

ROOT = Path(__file__).parents[2]
SECONDS = 60.0

Seen = tuple[str | None, int, str, str]

# Nobody waits for the first attempt's lines where the next one starts elsewhere, so that only their times order them.
RUN: list[Seen] = [
    (None, 1, "stdout", "begin"),
    ("train", 1, "stdout", "x is 7"),
    ("train", 1, "WARNING", "loss 3.5"),
    ("train_2", 1, "stdout", "x is 8"),
    ("train_2", 1, "WARNING", "loss 4.0"),
    ("unsure", 1, "stderr", "trying"),
    ("unsure", 2, "stderr", "trying"),
    (None, 1, "ERROR", "gave up"),
]


def seen(line: LogLine) -> Seen:
    return (line.invocation_id, line.attempt, line.level, line.text)


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_logs_of_flows_on_a_worker(database: str, tmp_path: Path, isolation: str) -> None:
    with ExitStack() as stack:
        place = Place(database, tmp_path, stack)
        place.planner()
        target = ("tests.e2e.logged_flows", "--address", place.address, "--project", "e2e")
        worker = Process("dalsegno_executor", *target, "--isolation", isolation, "--processes", "1")
        stack.callback(worker.close)
        worker.line("connected")
        handle = place.start(code.training, 7)
        assert handle.wait(SECONDS) == 15
        executions = place.client.executions
        log = executions.logs(handle.exec_id)
        assert list(map(seen, log)) == RUN
        assert list(map(seen, log)) == RUN
        assert [seen(line) for line in executions.logs(handle.exec_id, "all:train")] == RUN[1:5]
        assert [line.logger for line in executions.logs(handle.exec_id, "train_2")] == ["", "training"]
        with pytest.raises(StateError, match="unsure"):
            list(executions.logs(handle.exec_id, "unsur"))
        worker.line("x is 7")


def test_logs_of_a_script_and_what_the_command_line_shows() -> None:
    with reachable_folder() as folder:
        environment = {**os.environ, HOME_VARIABLE: str(folder / "home"), "DALSEGNO_PROJECT": "logs"}
        environment.pop("DALSEGNO_ADDRESS", None)

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, *arguments]
            return subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True
            )

        try:
            script = run("-W", "error", "-m", "tests.e2e.logged_flows")
            *printed, facts = script.stdout.splitlines()
            assert printed == ["begin", "x is 7", "x is 8", "begin", "x is 8"]
            assert script.stderr.splitlines().count("loss 4.0") == 2
            told = json.loads(facts)
            assert [line[24:] for line in told["run"]][:3] == [
                "(body) stdout begin",
                "train stdout x is 7",
                "train WARNING training: loss 3.5",
            ]
            assert not [line for line in told["replay"] if " train " in line]
            assert len([line for line in told["replay"] if " train_2 " in line]) == 2
            shown = run("-m", "dalsegno.cli", "executions", "logs", told["exec_id"])
            assert shown.stdout.splitlines() == told["run"]
            one = ("--invocation", "train_2", "--output", "json")
            document = json.loads(run("-m", "dalsegno.cli", "executions", "logs", told["exec_id"], *one).stdout)
            assert document["exec_id"] == told["exec_id"]
            assert [(line["text"], line["level"]) for line in document["lines"]] == [
                ("x is 8", "stdout"),
                ("loss 4.0", "WARNING"),
            ]
        finally:
            run("-c", "from dalsegno.local.engine import down; down()")
