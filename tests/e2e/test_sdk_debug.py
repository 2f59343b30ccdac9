"""Replays that are debugged: in the script's own process and main thread, with breakpoints that stop."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno.local.home import HOME_VARIABLE
from tests.postgres import reachable_folder

SCRIPT = Path(__file__).parent / "sdk_scripts" / "debugging.py"
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of the scripts; their engine takes tasks from an executor that is silent for two seconds."""
    with reachable_folder() as folder:
        environment = {
            **os.environ,
            HOME_VARIABLE: str(folder / "home"),
            "DALSEGNO_PROJECT": "debugging",
            "DALSEGNO_LEASE_DURATION": "2.0",
            "DALSEGNO_HEARTBEAT_INTERVAL": "0.25",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        environment.pop("DALSEGNO_ADDRESS", None)
        yield environment
        stop = [sys.executable, "-c", "from dalsegno.local.engine import down; down()"]
        subprocess.run(stop, env=environment, check=True, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def said(environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What the script says that stops at every breakpoint; it asserts that each is in its main thread."""
    script = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert script.returncode == 0, script.stderr
    told = [json.loads(line) for line in script.stdout.splitlines()]
    return {facts.pop("what"): facts for facts in told}


@pytest.mark.semantics("8", "debug=True runs the replay in the calling process", "and is marked as such")
def test_a_pipelines_replay_runs_in_the_calling_thread_and_is_marked(said: dict[str, dict[str, Any]]) -> None:
    assert said["pipeline"] == {"result": 10, "debug": True, "source": False, "stops": ["load", "total"]}
    assert said["skip"] == {"stops": ["total"], "checkpoints": {"load": "reused", "total": "completed"}}


@pytest.mark.semantics("8", "full replays counted, single-step and debug ones not")
def test_debugged_replays_are_not_the_latest_run(said: dict[str, dict[str, Any]]) -> None:
    assert said["latest"]["original"]


def test_a_single_step_is_debugged(said: dict[str, dict[str, Any]]) -> None:
    assert said["step"] == {"output": 7, "single": True, "debug": True, "stops": ["total"]}


@pytest.mark.semantics("8", "debug=True runs the replay in the calling process")
def test_a_flows_body_and_what_it_submits_run_in_the_calling_thread(said: dict[str, dict[str, Any]]) -> None:
    stops = ["body", "increment", "load", "total", "total", "total"]
    assert said["side_by_side"] == {"same": True, "debug": True, "stops": stops}
    assert said["on_a_loop"] == {"same": True, "debug": True, "stops": ["body", "increment", "total"]}


def test_failures_are_retried_caught_and_recorded(said: dict[str, dict[str, Any]]) -> None:
    assert said["failing"] == {
        "status": "failed",
        "stops": ["fragile", "fragile", "caught"],
        "attempt": 2,
        "message": "no luck with 1",
    }


def test_a_wait_is_answered_from_elsewhere(said: dict[str, dict[str, Any]]) -> None:
    assert (said["waits"]["result"], said["waits"]["stops"]) == ("hello 2", ["load", "answered"])
    assert "dalsegno executions input" in said["waits"]["told"]


@pytest.mark.parametrize("name", ["sums", "side_by_side"])
def test_an_interrupt_ends_the_debugging_and_the_replay(said: dict[str, dict[str, Any]], name: str) -> None:
    assert said[f"interrupted {name}"] == {"finished": True, "debug": True}


class Debugger:
    """A terminal with ``pdb`` behind it."""

    PROMPT = b"(Pdb) "

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._unread = b""

    def until(self, text: bytes) -> str:
        """Return what is shown until a text comes, or until the end where it does not."""
        while text not in self._unread:
            try:
                shown = os.read(self._fd, 65536)
            except OSError:  # what a terminal says when nobody is left on the other side
                shown = b""
            if not shown:
                break
            self._unread += shown
        before, _, self._unread = self._unread.partition(text)
        return before.decode()

    def type(self, line: str) -> str:
        """Type a line, and return what is shown until the next prompt."""
        os.write(self._fd, f"{line}\n".encode())
        return self.until(self.PROMPT)


@pytest.mark.semantics("8", "breakpoints and all, against the same planner and artifacts")
def test_pdb_stops_for_longer_than_leases_and_timeouts_last(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    script = subprocess.Popen(
        [sys.executable, str(SCRIPT), "pdb"],
        env={**environment, "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    debugger = Debugger(ours)
    try:
        debugger.until(Debugger.PROMPT)
        debugger.type("up")
        assert "return list(range(n))" in debugger.type("list")
        assert "4" in debugger.type("p n")
        debugger.type("continue")
        debugger.type("up")
        assert "[0, 1, 2" in debugger.type("p xs")
        # The lease lasts 2 s and the step's timeout is 0.5 s: both pass, and nothing comes of it.
        debugger.type("!__import__('time').sleep(2.5)")
        os.write(ours, b"continue\n")
        rest = debugger.until(b"no such text")
        assert script.wait(TIMEOUT_S) == 0, rest
        told = re.search(r'\{"what": "pdb".*\}', rest)
        assert told is not None, rest
        assert json.loads(told[0]) == {"what": "pdb", "result": 6, "debug": True}
    finally:
        script.kill()
        script.wait()
        os.close(ours)
