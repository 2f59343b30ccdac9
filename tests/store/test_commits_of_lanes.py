"""The commit loops of two lanes beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from dalsegno.v1.executor_service_pb2 import Report, StepCompleted
from dalsegno_planner.core.lanes import Lane, rank
from dalsegno_planner.dispatch.batch import Reported
from dalsegno_planner.dispatch.lanes import CommitLoops
from dalsegno_planner.dispatch.sessions import Session, Sessions, Token
from dalsegno_planner.dispatch.tasks import ClaimedTask
from tests.store.ledger import ROUTES, Ledger, connect

LITTLE = 64
"""More than this and a live step would wait for it."""


class Claims:
    """Who is told of commits, and notes how much each has claimed.

    Attributes:
        wake: Called after each: credit that one lane has not used is for the other.
    """

    def __init__(self) -> None:
        self.sizes: asyncio.Queue[int] = asyncio.Queue()
        self.wake: Callable[[], None] = lambda: None

    def committed(
        self, claimed: Sequence[ClaimedTask], resolved: Sequence[Any], changed: Sequence[UUID], moved: Sequence[UUID]
    ) -> None:
        if claimed:
            self.sizes.put_nowait(len(claimed))
        self.wake()

    def due_in(self, seconds: float) -> None:
        pass

    def slots_freed(self) -> None:
        pass

    def connection_lost(self) -> None:
        pass

    async def all_of(self, count: int) -> list[int]:
        """How much each commit has claimed of so many."""
        found = [await self.sizes.get()]
        while sum(found) < count:
            found.append(await self.sizes.get())
        return found


@pytest.fixture
async def session(ledger: Ledger) -> Session:
    """That of a worker which has nothing in hand."""
    session_id = await ledger.session()
    return Session(session_id, "worker", "default", False, await ledger.generation(session_id), set(ROUTES))


@pytest.fixture
async def claims() -> Claims:
    return Claims()


@pytest.fixture
async def loops(database: str, session: Session, claims: Claims) -> AsyncIterator[CommitLoops]:
    """They run."""
    sessions = Sessions()
    sessions.add(session)
    running = CommitLoops(lambda: connect(database), sessions, claims)
    claims.wake = running.wake
    running.start()
    yield running
    await running.stop()


async def test_a_commit_carries_little_of_bulk_work_beside_live_work_and_much_without(
    ledger: Ledger, session: Session, loops: CommitLoops, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a live step waits for no long one."""
    await ledger.bulk(1)
    (live,) = await ledger.claim(session.id)
    await ledger.bulk(1_000, rank(Lane.BULK))

    def offer(steps: int) -> None:
        session.steps.offer(steps, 0)
        loops.wake()

    offer(300)
    assert await claims.all_of(300) == [300]
    now = asyncio.get_running_loop().time()
    with monkeypatch.context() as clock:
        clock.setattr(asyncio.get_running_loop(), "time", lambda: now)  # live work is new, however slow this is
        token = Token(live.execution_id, live.number, live.epoch)
        report = Report(report_id=1, token=token.message(), completed=StepCompleted())
        await loops.report([Reported.of(session, report)])
        offer(200)
        assert max(await claims.all_of(200)) <= LITTLE
        clock.setattr(asyncio.get_running_loop(), "time", lambda: now + 2)
        offer(200)
        assert await claims.all_of(200) == [200]
