"""The tour, as a new user takes it: twice, on an engine of its own, with the commands that it prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import reachable_folder

pytest.importorskip("sklearn")


class Shell:
    """A terminal of 80 columns that is piped into a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "DALSEGNO_ADDRESS"},
            "DALSEGNO_HOME": str(folder / "home"),
            "COLUMNS": "80",
        }

    def dalsegno(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dalsegno.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            env=self._environment,
            timeout=110,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with reachable_folder() as folder:
        shell = Shell(folder)
        yield shell
        shell.dalsegno("down")


@pytest.fixture(scope="module")
def printed(shell: Shell) -> str:
    return shell.dalsegno("demo")


def test_the_plan_is_shown_before_each_replay(printed: str) -> None:
    assert "3 of 6 steps re-run, 3 are reused" in printed
    assert "2 of 3 steps re-run, 1 is reused" in printed
    assert re.search(r"● +train +re-runs +the sign", printed)
    assert re.search(r"● +write_draft +re-runs .*takes the overridden research", printed)


def test_original_and_replay_are_compared(printed: str) -> None:
    assert re.search(r"what ran +all 6 steps +train, evaluate", printed)
    assert re.search(r"read rightly +90\.7% +97\.6%", printed)
    assert "Dal segno al coda" in printed


def test_no_line_is_wider_than_the_terminal(printed: str) -> None:
    assert max(map(len, printed.splitlines())) <= 80


def test_the_commands_that_it_prints_work_when_they_are_pasted(shell: Shell, printed: str) -> None:
    unbroken = printed.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in unbroken if line.startswith("  dalsegno ")]
    assert len(commands) >= 5
    for command in commands:
        assert shell.dalsegno(*command[1:])


def test_it_can_be_taken_again_and_read_by_programs(shell: Shell, printed: str) -> None:
    tour: dict[str, Any] = json.loads(shell.dalsegno("demo", "--output", "json"))
    assert _reused(tour["pipeline"]["replay"]["steps"]) == ["load", "split", "scale"]
    assert _reused(tour["flow"]["replay"]["steps"]) == ["research"]
    assert tour["flow"]["plan"]["affected_count"] == 2
    assert tour["pipeline"]["replay"]["inputs"] == {"strength": 0.1, "test_fraction": 0.25}
    assert tour["pipeline"]["original"]["name"] not in printed


def _reused(steps: Sequence[dict[str, Any]]) -> list[str]:
    return [step["invocation_id"] for step in steps if step["status"] == "reused"]
