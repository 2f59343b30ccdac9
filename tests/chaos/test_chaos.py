"""A short run of the failure suite, on a schedule that is always the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.schedule import Part, schedule
from tests.postgres import reachable_folder

ROOT = Path(__file__).parents[2]
SEED, SECONDS = 92, 25


@pytest.mark.timeout(300)
@pytest.mark.semantics("7", "An executor or planner that dies loses nothing", "no result is recorded twice")
def test_nothing_is_lost_or_doubled_whatever_is_killed() -> None:
    with reachable_folder() as folder:
        # In a process of its own: what it starts must not be children of a test.
        command = [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--seconds", str(SECONDS)]
        ended = subprocess.run(
            [*command, "--planners", "3", "--workers", "2", "--customers", "4", "--programs", "15"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)},
            check=False,
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_seed_reproduces_the_schedule_of_faults() -> None:
    assert schedule(SEED, 600) == schedule(SEED, 600)
    assert schedule(SEED, 600) != schedule(SEED + 1, 600)


def test_the_short_run_harms_every_kind_of_process() -> None:
    harmed = {fault.part for fault in schedule(SEED, SECONDS)}
    assert harmed >= {Part.WORKER, Part.RUNNER, Part.PLANNER, Part.POSTGRES}
