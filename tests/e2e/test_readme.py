"""What the README shows works when it is pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno.cli.session import Session
from dalsegno.cli.views import ExecutionView
from dalsegno.local import down
from dalsegno.states import ExecutionState
from tests.e2e.test_cli import PROJECT, CommandLine
from tests.postgres import reachable_folder

README = Path(__file__).parents[2] / "README.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
_SESSIONS = re.findall(r"^```console\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^ *print\(.*\)\s+# (.+)$", re.MULTILINE)


@pytest.mark.timeout(180)
def test_every_block_prints_what_its_comments_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with reachable_folder() as home:
        monkeypatch.setenv("DALSEGNO_HOME", str(home))
        monkeypatch.delenv("DALSEGNO_ADDRESS", raising=False)
        try:
            for number, block in enumerate(_BLOCKS):
                script = tmp_path / f"pasted_{number}.py"
                script.write_text(block, "utf-8")
                done = subprocess.run(
                    [sys.executable, script], capture_output=True, text=True, timeout=60, env=dict(os.environ)
                )
                assert done.returncode == 0, done.stderr
                expected = [comment.split("; ")[0] for comment in _PRINTED.findall(block)]
                assert done.stdout.splitlines() == expected
        finally:
            down()


def test_the_blocks_are_those_that_are_meant() -> None:
    assert len(_BLOCKS) == 5
    assert sum(len(_PRINTED.findall(block)) for block in _BLOCKS) >= 11


@pytest.mark.timeout(180)
def test_a_wait_is_answered_from_the_command_line(tmp_path: Path) -> None:
    (block,) = [one for one in _BLOCKS if "def reviewed" in one]
    (session,) = [one for one in _SESSIONS if "reviewing.py" in one]
    worker, *commands = [
        shlex.split(line.removeprefix("$ dalsegno ").removesuffix("&")) for line in session.splitlines()
    ]
    with reachable_folder() as folder:
        command = CommandLine(folder)
        (folder / "reviewing.py").write_text(block, "utf-8")
        (run, answer, get) = commands
        try:
            command(*run)
            with (
                subprocess.Popen(
                    [sys.executable, "-m", "dalsegno.cli", *worker], cwd=folder, env=command.environment
                ) as process,
                Session(command.address, PROJECT) as opened,
            ):
                for event in opened.watch("first"):
                    if isinstance(event, ExecutionView) and event.state is ExecutionState.WAITING:
                        break
                assert "review is answered" in command.look(*answer).stdout
                for _ in opened.watch("first"):
                    pass
                assert "published kitchens" in command.look(*get).stdout
                process.terminate()
                assert process.wait(60) == 0
        finally:
            command("down")
