"""Steps of a flow that end in another order than when it was recorded are no divergence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client, Execution
from dalsegno.cli.session import Session
from dalsegno.decorators import Flow
from dalsegno.states import ExecutionState
from tests.e2e import racing_flows as code
from tests.e2e.racing_flows import FLOWS, RACERS
from tests.e2e.test_lifecycle import await_state
from tests.e2e.test_worker import SECONDS, Place, Process
from tests.postgres import PostgresServer

FIRST = (3, 1, 2)
LATER = (2, 1, 3)


class Track:
    """Where the racers run: it lets them go, and sees in which order the body is given their values."""

    def __init__(self, place: Place, folder: Path, stack: ExitStack) -> None:
        self.folder, self._place, self._stack = folder, place, stack
        for name in ("given", *(f"go{number}" for number in RACERS)):
            os.mkfifo(folder / name)
        self._given = stack.enter_context(os.fdopen(os.open(folder / "given", os.O_RDWR)))
        self.client: Client = place.client

    def worker(self) -> Process:
        target = ("dalsegno_executor", code.__name__, "--address", self._place.address, "--project", "e2e")
        worker = Process(*target, "--processes", "1", "--isolation", "thread")
        self._stack.callback(worker.close)
        worker.line("connected")
        return worker

    def start(self, flow: Flow[..., Any], *, asks: bool) -> Execution:
        return self.client.executions.start(flow, str(self.folder), asks)

    def let_go(self, number: int) -> None:
        (self.folder / f"go{number}").write_text("go")

    def given(self, count: int = len(RACERS)) -> tuple[int, ...]:
        """The next values that the body is given."""
        return tuple(int(self._given.readline()) for _ in range(count))

    def run(self, flow: Flow[..., Any], *, asks: bool = False) -> Execution:
        """Have the racers end in the first order; each goes once the body has what it can have of those before."""
        execution = self.start(flow, asks=asks)
        order: tuple[int, ...] = ()
        for number in FIRST:
            self.let_go(number)
            if FLOWS[flow] == FIRST:
                order += self.given(1)
        assert (order or self.given()) == FLOWS[flow]
        return execution

    def ended(self, execution: Execution) -> Execution:
        return self.client.executions.wait(execution, SECONDS)


@pytest.fixture(scope="module")
def place(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A planner that all share."""
    name = postgres.create_database(migrated=True)
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        shared = Place(postgres.dsn(name), tmp_path_factory.mktemp("races"), stack)
        shared.planner()
        yield shared


@pytest.fixture
def track(place: Place, tmp_path: Path) -> Iterator[Track]:
    with ExitStack() as stack:
        yield Track(place.for_test(tmp_path, stack), tmp_path, stack)


@pytest.mark.semantics("5", "dalsegno.as_completed records the order", "a value is received at .result()")
@pytest.mark.parametrize("flow", FLOWS)
def test_a_replay_is_given_the_recorded_order(track: Track, flow: Flow[..., Any]) -> None:
    track.worker()
    source = track.ended(track.run(flow))
    expected = list(FLOWS[flow])
    assert source.result == expected
    last = track.client.executions.replay(source.exec_id, from_="finish")
    assert track.given() == FLOWS[flow], "of reused calls, which all have ended from the start"
    assert track.ended(last).result == expected
    record = track.client.executions.export(source.exec_id)
    imported = track.client.executions.import_({**record, "name": ""})
    elsewhere = track.client.executions.replay(imported.exec_id, from_="finish")
    assert track.given() == FLOWS[flow], "also where the recording comes from elsewhere"
    assert track.ended(elsewhere).result == expected
    again = track.client.executions.replay(source.exec_id, from_="all:race")
    for number in LATER:
        track.let_go(number)
    assert track.given() == FLOWS[flow], "of calls that ended in another order this time"
    assert track.ended(again).result == expected
    third = track.client.executions.replay(again.exec_id, from_="finish")
    assert track.given() == FLOWS[flow]
    assert track.ended(third).result == expected


@pytest.mark.semantics("5", "asyncio.gather works", "resumption after a wait, is the same mechanism")
@pytest.mark.parametrize("flow", FLOWS)
def test_a_body_that_goes_on_after_a_wait_is_given_the_same_order(track: Track, flow: Flow[..., Any]) -> None:
    track.worker()
    execution = track.run(flow, asks=True)
    with Session(track.client.reach.connection.address, "e2e") as session:
        await_state(session, execution.exec_id, ExecutionState.WAITING)
    track.client.executions.input(execution.exec_id, value=True)
    assert track.given() == FLOWS[flow]
    assert track.ended(execution).result == list(FLOWS[flow])


@pytest.mark.parametrize("known", [1, 2])
def test_a_body_that_is_recovered_is_given_the_order_as_far_as_it_had_come(track: Track, known: int) -> None:
    first = track.worker()
    execution = track.start(code.completing, asks=False)
    for number in FIRST[:known]:
        track.let_go(number)
        assert track.given(1) == (number,)
    first.kill()
    first.ended()
    track.worker()
    left = sorted(FIRST[known:], reverse=True)
    assert track.given(known) == FIRST[:known]
    order = FIRST[:known]
    for number in left:
        track.let_go(number)
        order += track.given(1)
    assert order == (*FIRST[:known], *left)
    assert track.ended(execution).result == list(order)
