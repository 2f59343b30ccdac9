"""Processes are killed while flows and pipelines are at work; then the history in Postgres is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from dalsegno import Client
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.postmaster import find_postmaster
from dalsegno.local.processes import wait_ended
from dalsegno.local.state import EngineState
from tests.e2e.kills import flows as code
from tests.e2e.kills.history import read_history
from tests.e2e.test_worker import Process
from tests.postgres import EMBEDDED_MAJOR, reachable_folder

SECONDS = 60.0
PROJECT = "kills"
SCRIPT = Path(__file__).parent / "kills" / "script.py"


def make_fifos(folder: Path, *labels: str) -> None:
    for label in labels:
        os.mkfifo(folder / f"{label}.started")
        os.mkfifo(folder / f"{label}.go")


# The embedded engine restarts what has died.


@pytest.fixture(scope="module")
def home() -> Iterator[EngineHome]:
    """The home of an engine that the scripts start."""
    with reachable_folder() as folder:
        yield EngineHome(folder / "home")
        stop = [sys.executable, "-c", "from dalsegno.local.engine import down; down()"]
        subprocess.run(stop, env=environment(EngineHome(folder / "home")), check=True, timeout=SECONDS)


def environment(home: EngineHome) -> dict[str, str]:
    """The environment of scripts on this engine."""
    without = {name: value for name, value in os.environ.items() if name != "DALSEGNO_ADDRESS"}
    # However slow the machine is, what was killed is back before the script is given up.
    return {**without, HOME_VARIABLE: str(home.root), "DALSEGNO_PROJECT": PROJECT, "DALSEGNO_LEASE_DURATION": "60"}


def process_of(home: EngineHome, victim: str) -> psutil.Process:
    state = EngineState.read(home.state_file)
    assert state is not None
    if victim == "planner":
        return psutil.Process(state.planner.pid)
    postmaster = find_postmaster((home.root / "postgres" / str(EMBEDDED_MAJOR)).resolve())
    assert postmaster is not None
    return postmaster


@pytest.mark.parametrize("victim", ["planner", "postgres"])
def test_a_script_goes_on_when_a_part_of_its_engine_is_killed(home: EngineHome, tmp_path: Path, victim: str) -> None:
    make_fifos(tmp_path, "flow", "pipeline")
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path)],
        env=environment(home),
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        for label in ("flow", "pipeline"):
            (tmp_path / f"{label}.started").read_text()
        killed = process_of(home, victim)
        killed.kill()
        assert wait_ended(killed, SECONDS)
        for label in ("flow", "pipeline"):
            (tmp_path / f"{label}.go").write_text("go")
        said, _ = script.communicate(timeout=SECONDS)
    assert script.returncode == 0
    results = json.loads(said)
    assert list(results.values()) == [20, 20]
    # Its own process has lived on, and its results with it: nothing ran twice.
    assert sorted((tmp_path / "journal").read_text().split()) == ["flow", "pipeline"]
    assert process_of(home, victim) != killed
    state = EngineState.read(home.state_file)
    assert state is not None
    read_history(state.database_url, list(results)).assert_whole(invocations=6)


# Workers take over from one that has died.


class Workers:
    """A planner and some workers, which give up each other's tasks soon."""

    def __init__(self, database: str, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._address = f"unix:{folder}/planner.sock"
        settings = {
            "DALSEGNO_DATABASE_URL": database,
            "DALSEGNO_LISTEN": self._address,
            "DALSEGNO_OBJECT_STORE": (folder / "objects").as_uri(),
            "DALSEGNO_LEASE_DURATION": "4",
            "DALSEGNO_HEARTBEAT_INTERVAL": "0.4",
            "DALSEGNO_POLL_INTERVAL": "0.2",
        }
        self._started("dalsegno_planner", **settings).line("ready ")
        where = ("--address", self._address, "--project", PROJECT)
        workers = [self._started("dalsegno_executor", code.__name__, *where, *RUNNER) for _ in range(3)]
        self.by_pid = {worker.pid: worker for worker in workers}
        for worker in workers:
            worker.line("connected")
        self.client = stack.enter_context(Client(self._address, PROJECT))

    def _started(self, *arguments: str, **settings: str) -> Process:
        process = Process(*arguments, **settings)
        self._stack.callback(process.close)
        return process


RUNNER = ("--processes", "1", "--slots", "4")
BUSY_FLOWS, BUSY_PIPELINES, LENGTH = 3, 3, 60


def test_a_worker_that_is_killed_loses_and_doubles_nothing(database: str, tmp_path: Path) -> None:
    make_fifos(tmp_path, *code.MEETINGS)
    folder = str(tmp_path)
    with ExitStack() as stack:
        workers = Workers(database, tmp_path, stack)
        executions = workers.client.executions
        meetings: list[Any] = [code.meeting_directly, code.meeting_elsewhere, code.meeting_in_pipeline]
        met = [executions.start(meeting, folder) for meeting in meetings]
        met_by = {label: int((tmp_path / f"{label}.started").read_text()) for label in code.MEETINGS}
        busy = [executions.start(code.busy_flow, folder, f"flow{n}", LENGTH) for n in range(BUSY_FLOWS)]
        busy += [executions.start(code.busy_pipeline, folder, f"pipeline{n}", LENGTH) for n in range(BUSY_PIPELINES)]
        victim = met_by["direct"]
        workers.by_pid[victim].kill()
        met_again = {
            label: int((tmp_path / f"{label}.started").read_text()) for label, pid in met_by.items() if pid == victim
        }
        assert victim not in met_again.values()
        for label in code.MEETINGS:
            (tmp_path / f"{label}.go").write_text("go")
        assert [executions.wait(one, SECONDS).result for one in met] == [3, 3, 3]
        assert [executions.wait(one, SECONDS).result for one in busy] == [LENGTH] * len(busy)
    steps = 3 * len(met) + LENGTH * BUSY_FLOWS + 2 * LENGTH * BUSY_PIPELINES
    read_history(database, [one.exec_id for one in (*met, *busy)]).assert_whole(steps)
    runs = journal(tmp_path)
    assert len(runs) == steps
    assert {label: runs[label] for label in met_again} == {label: [victim, pid] for label, pid in met_again.items()}
    # What ran again was begun by the one that was killed; nothing of the others was.
    again = [pids for pids in runs.values() if len(pids) > 1]
    assert all(len(pids) == 2 and pids[0] == victim != pids[1] for pids in again), (victim, again)


def journal(folder: Path) -> dict[str, list[int]]:
    """By which workers each step was run, in order."""
    runs: dict[str, list[int]] = defaultdict(list)
    for line in (folder / "journal").read_text().splitlines():
        label, _, pid = line.rpartition(" ")
        runs[label].append(int(pid))
    return runs
