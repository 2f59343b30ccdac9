"""Which processes are believed to be whose."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dalsegno.local.postmaster import PID_FILE, PidFile, Serves, find_postmaster, read_pid_file, serves
from dalsegno.local.processes import ProcessIdentity, end, living, wait_ended

_WAITS = "import sys; sys.stdin.read()"


@pytest.fixture
def start() -> Iterator[Callable[..., psutil.Process]]:
    """Starts processes that wait until the test ends, under any name and in any folder."""
    with ExitStack() as stack:

        def begin(name: str | None = None, cwd: Path | None = None) -> psutil.Process:
            command = [sys.executable, "-S", "-c", _WAITS] if name is None else [name]
            waiting = subprocess.Popen(
                command, executable="/bin/cat" if name is not None else None, stdin=subprocess.PIPE, cwd=cwd
            )
            stack.enter_context(waiting)
            process = psutil.Process(waiting.pid)
            while not process.cmdline():  # the kernel sets it a moment after the start
                pass
            return process

        yield begin


def test_an_identity_finds_its_process_and_no_other(start: Callable[..., psutil.Process]) -> None:
    process = start()
    identity = ProcessIdentity.of(process.pid)
    assert identity.find() == process
    assert identity.find(running=_WAITS) == process
    assert identity.find(running="dalsegno_planner") is None
    assert replace(identity, create_time=identity.create_time - 60).find() is None
    end(process, grace_s=10)
    assert identity.find() is None


def test_a_zombie_does_not_live() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        process = psutil.Process(child.pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            pass
        assert living(child.pid) is None
        assert wait_ended(process, 0)


def test_waiting_for_a_process_that_goes_on(start: Callable[..., psutil.Process]) -> None:
    assert not wait_ended(start(), 0.05)


def test_no_process_has_a_negative_pid() -> None:
    assert living(-1) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("rubbish\n", None),
        ("17\n/data\n", PidFile(17, "")),
        ("-17\n/data\n", PidFile(17, "")),
        ("17\n/data\n1700000000\n5432\n/run\n\n 99 5\nready   \n", PidFile(17, "ready")),
        ("17\n/data\n1700000000\n5432\n/run\n\n 99 5\nstopping\n", PidFile(17, "stopping")),
    ],
)
def test_reads_pid_files_in_every_stage(tmp_path: Path, text: str, expected: PidFile | None) -> None:
    assert read_pid_file(tmp_path) is None
    (tmp_path / PID_FILE).write_text(text)
    assert read_pid_file(tmp_path) == expected


def test_a_process_serves_a_folder_by_its_command_line(tmp_path: Path, start: Callable[..., psutil.Process]) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.mkdir()
    assert serves(start(), data) is Serves.NO
    assert serves(psutil.Process(os.getpid()), data) is Serves.NO
    by_folder = start("postgres", cwd=data)
    assert serves(by_folder, data) is Serves.YES
    assert serves(by_folder, other) is Serves.NO
    assert serves(start("postgres: checkpointer", cwd=data), data) is Serves.NO


def test_a_pid_file_is_believed_only_if_the_process_bears_it_out(
    tmp_path: Path, start: Callable[..., psutil.Process]
) -> None:
    stranger, ours = start(), start("/usr/bin/postgres", cwd=tmp_path)
    (tmp_path / PID_FILE).write_text(f"{stranger.pid}\n")
    assert find_postmaster(tmp_path) is None
    (tmp_path / PID_FILE).write_text(f"{ours.pid}\n")
    assert find_postmaster(tmp_path) == ours
