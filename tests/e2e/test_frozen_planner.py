"""A planner stands still: nothing closes its connections, and its kernel goes on answering."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dalsegno import Client
from tests.e2e.kills import flows as code
from tests.e2e.kills.history import read_history
from tests.e2e.test_kills import journal
from tests.e2e.test_worker import Process

PROJECT = "frozen"
SECONDS = 60.0


@pytest.fixture
def planners(database: str, tmp_path: Path) -> Iterator[dict[str, Process]]:
    """Two planners with the usual lease, by their addresses."""
    environment = {
        "DALSEGNO_DATABASE_URL": database,
        "DALSEGNO_LISTEN": "127.0.0.1:0",
        "DALSEGNO_OBJECT_STORE": (tmp_path / "objects").as_uri(),
    }
    with ExitStack() as stack:
        started = [Process("dalsegno_planner", **environment) for _ in range(2)]
        for planner in started:
            stack.callback(planner.close)
        yield {planner.line("ready ").split()[1]: planner for planner in started}


@pytest.mark.semantics("7", "An executor or planner that dies loses nothing", "no result is recorded twice")
def test_an_executor_leaves_it_before_its_lease_is_over(
    database: str, planners: dict[str, Process], tmp_path: Path
) -> None:
    for word in ("started", "go"):
        os.mkfifo(tmp_path / f"pipeline.{word}")
    command = ("dalsegno_executor", code.__name__, "--project", PROJECT, "--processes", "1")
    worker = Process(*command, "--address", ",".join(planners))
    with ExitStack() as stack:
        stack.callback(worker.close)
        frozen = worker.line("connected").split()[-1]
        (other,) = set(planners) - {frozen}
        client = stack.enter_context(Client(other, PROJECT))
        started = client.executions.start(code.meeting_in_pipeline, str(tmp_path))
        (tmp_path / "pipeline.started").read_text()
        planners[frozen].kill(signal.SIGSTOP)
        assert worker.line("connected").split()[-1] == other
        (tmp_path / "pipeline.go").write_text("go")
        assert client.executions.wait(started, SECONDS).result == 3
        read_history(database, [started.exec_id]).assert_whole(3)
    assert {label: len(pids) for label, pids in journal(tmp_path).items() if len(pids) > 1} == {}


def test_so_does_who_waits_for_an_execution(planners: dict[str, Process], tmp_path: Path) -> None:
    for word in ("started", "go"):
        os.mkfifo(tmp_path / f"pipeline.{word}")
    addresses = ",".join(planners)
    worker = Process(
        "dalsegno_executor", code.__name__, "--project", PROJECT, "--processes", "1", "--address", addresses
    )
    with ExitStack() as stack:
        stack.callback(worker.close)
        worker.line("connected")
        client = stack.enter_context(Client(addresses, PROJECT))
        started = client.executions.start(code.meeting_in_pipeline, str(tmp_path))
        (tmp_path / "pipeline.started").read_text()
        planners[client.address].kill(signal.SIGSTOP)
        (tmp_path / "pipeline.go").write_text("go")
        assert client.executions.wait(started, SECONDS).result == 3
