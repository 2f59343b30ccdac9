"""Flows whose code has changed since they were recorded: in a replay, after a wait, and after a crash."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client, Execution
from dalsegno.cli.session import Session
from dalsegno.client.handles import ExecutionHandle
from dalsegno.errors import DivergenceKind, FailureOrigin
from dalsegno.states import ExecutionState
from tests.e2e.divergence.changes import DIVERGING, HARMLESS, SITUATIONS, flow_name, module
from tests.e2e.test_lifecycle import await_state
from tests.e2e.test_worker import SECONDS, Place, Process
from tests.postgres import PostgresServer

MODULE = "changing_flows"


BRANCHING = "branches_in_replay"
SAYING = ("says_diverged_in_a_step", "says_diverged_in_its_body")
UNCHANGED = (BRANCHING, *SAYING)


@dataclass(frozen=True)
class Repeated:
    """Executions whose bodies have repeated, with today's code, what was recorded; and what user code noted then."""

    ended: dict[str, Execution]
    noted: list[str]


class Versions:
    """The two versions of the code, and workers that run one of them."""

    def __init__(self, place: Place, folder: Path, stack: ExitStack) -> None:
        self._place, self._stack = place, stack
        self._folder = folder
        self.holds = folder / "holds"
        self.journal = folder / "journal"
        os.mkfifo(self.holds)
        for version in ("then", "now"):
            (folder / version).mkdir()
            (folder / version / f"{MODULE}.py").write_text(module(today=version == "now"))
        stack.callback(sys.modules.pop, MODULE, None)
        sys.path.insert(0, str(folder / "then"))
        stack.callback(sys.path.remove, str(folder / "then"))
        self.code = importlib.import_module(MODULE)

    def worker(self, version: str, seed: int) -> Process:
        """Start a worker; `seed` decides the order of sets."""
        worker = Process(
            "dalsegno_executor", str(self._folder / version / f"{MODULE}.py"), "--address", self._place.address,
            "--project", "e2e", "--processes", "1", "--slots", "100", "--isolation", "thread",
            PYTHONHASHSEED=str(seed),
            TEST_JOURNAL=str(self.journal),
            TEST_HOLDS=str(self.holds) if version == "then" else "",
        )  # fmt: skip
        self._stack.callback(worker.close)
        worker.line("connected")
        return worker


def order_of_set(seed: int) -> str:
    code = 'print(list({"one", "two", "three"}))'
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True
    ).stdout.decode()


def seeds() -> tuple[int, int]:
    """Two seeds under which a set has its elements in another order."""
    return 0, next(seed for seed in range(1, 100) if order_of_set(seed) != order_of_set(0))


@pytest.fixture(scope="module")
def repeated(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repeated]:
    """Every case in every situation: all are recorded by one worker, which is killed, and repeated by another."""
    name = postgres.create_database(migrated=True)
    folder = tmp_path_factory.mktemp("divergence")
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        place = Place(postgres.dsn(name), folder, stack)
        place.planner()
        versions = Versions(place, folder, stack)
        then, now = seeds()
        worker = versions.worker("then", then)
        started = {
            flow_name(case, situation): place.start(getattr(versions.code, flow_name(case, situation)))
            for situation in SITUATIONS
            for case in DIVERGING | HARMLESS
        }
        started |= {name: place.start(getattr(versions.code, name)) for name in UNCHANGED}
        until_recorded(place, started, versions.holds)
        worker.kill()
        worker.ended()
        versions.journal.unlink()
        client = place.client
        versions.worker("now", now)
        going_on = {name: goes_on(client, name, handle) for name, handle in started.items()}
        ended = {name: client.executions.wait(execution, SECONDS) for name, execution in going_on.items()}
        yield Repeated(ended, versions.journal.read_text().splitlines())


def until_recorded(place: Place, started: Mapping[str, ExecutionHandle[Any]], holds: Path) -> None:
    """Wait until each has ended, waits for an answer, or is held up in its step."""
    with os.fdopen(os.open(holds, os.O_RDWR)) as lines:
        waiting = {name for name in started if name.endswith("recovery")}
        while waiting:
            waiting.remove(lines.readline().strip())
    with Session(place.address, "e2e") as session:
        for name, handle in started.items():
            if name.endswith("replay"):
                handle.wait(SECONDS)
            elif name.endswith("resumption"):
                await_state(session, handle.exec_id, ExecutionState.WAITING)


def goes_on(client: Client, name: str, handle: ExecutionHandle[Any]) -> Execution:
    """Have an execution repeat what is recorded."""
    if name.endswith("replay"):
        return client.executions.replay(handle.exec_id, from_="last", inputs={"x": 0} if name == BRANCHING else {})
    if name.endswith("resumption"):
        client.executions.input(handle.exec_id, value=True)
    return client.executions.get(handle.exec_id)


@pytest.mark.semantics("5", "Kinds: reordered_call", "Recovery after a crash, and resumption after a wait")
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("case", DIVERGING)
@pytest.mark.semantics(
    "5",
    "Divergence is structural, never read from a message",
    "Removed or new required arguments of a flow are graph_changed too, before any user code runs.",
)
def test_a_change_that_diverges(repeated: Repeated, case: str, situation: str) -> None:
    change = DIVERGING[case]
    failure = repeated.ended[flow_name(case, situation)].failure
    assert failure is not None
    assert failure.origin is FailureOrigin.DIVERGENCE, failure
    assert failure.divergence is not None
    found = failure.divergence
    assert found.kind is change.kinds.get(situation, change.kind)
    assert not set(change.inputs) - set(found.inputs)
    if change.position is not None:
        assert found.position == change.position
    for side, wanted in ((found.expected, change.expected), (found.actual, change.actual)):
        if wanted is not None:
            assert side is not None
            assert side.invocation_id == wanted


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("case", HARMLESS)
def test_a_change_that_does_no_harm(repeated: Repeated, case: str, situation: str) -> None:
    execution = repeated.ended[flow_name(case, situation)]
    assert (execution.status, execution.failure) == (ExecutionState.COMPLETED, None)
    assert execution.result == 7 + (4 if case == "new_call_after_the_roots" else 0)


@pytest.mark.semantics("5", "also when an overridden flow input caused it (the error names the input)")
def test_an_overridden_input_that_leads_elsewhere_is_named(repeated: Repeated) -> None:
    failure = repeated.ended[BRANCHING].failure
    assert failure is not None
    assert failure.divergence is not None
    assert (failure.divergence.kind, failure.divergence.inputs) == (DivergenceKind.EXTRA_CALL, ("x",))
    assert "Overridden flow inputs may have caused it: x." in failure.message


@pytest.mark.semantics("5", 'A user exception whose text says "diverged" is a user error.')
@pytest.mark.parametrize("name", SAYING)
def test_a_user_exception_that_says_diverged_is_a_user_error(repeated: Repeated, name: str) -> None:
    failure = repeated.ended[name].failure
    assert failure is not None
    assert (failure.origin, failure.divergence) == (FailureOrigin.USER_CODE, None)


@pytest.mark.semantics("5", "before any further user code runs, and a body cannot swallow it")
def test_nothing_of_the_user_runs_after_a_divergence_and_nothing_twice(repeated: Repeated) -> None:
    assert repeated.noted == ["ran other"] * len(SITUATIONS), "of the new call after the roots, and of nothing else"
