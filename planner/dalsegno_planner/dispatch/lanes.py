"""The commit loops of the lanes, as one: what is reported goes to the loop of its lane.

Each has a connection of its own, so that live work does not wait for a commit that carries hundreds of results of bulk
work. They are to each other as two planners are.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.batch import Reported
from dalsegno_planner.dispatch.commit import CommitLoop, Outcome
from dalsegno_planner.dispatch.composites import BodyEnd, TaskResult
from dalsegno_planner.dispatch.sessions import Session, Sessions, Token

_ALONE = 512
"""Results, and tasks for each executor, in one commit. An executor works on what one claims while the next is made."""
_BESIDE_LIVE = 32
"""Of bulk work while there is live work, which waits for the event loop, the disk and the processors meanwhile."""
_LIVE_FOR = 1.0
"""Seconds after its last report for which live work is reckoned with."""


class CommitLoops:
    """One commit loop for each lane.

    Args:
        connect: Opens a connection for dispatch.
        sessions: The executors that are connected here.
        outcome: Is told what commits bring about.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]], sessions: Sessions, outcome: Outcome
    ) -> None:
        self._loops = {
            Lane.LIVE: CommitLoop(Lane.LIVE, connect, sessions, outcome, lambda: _ALONE),
            Lane.BULK: CommitLoop(Lane.BULK, connect, sessions, outcome, self._bulk_quantum),
        }
        self._last_live = float("-inf")

    def start(self) -> list[asyncio.Task[None]]:
        """Start the loops, and return them: each ends by being stopped, or with an error that nobody foresaw."""
        return [loop.start() for loop in self._loops.values()]

    async def stop(self) -> None:
        """Finish the commits that are under way and stop."""
        await asyncio.gather(*(loop.stop() for loop in self._loops.values()))

    async def report(self, reports: Sequence[Reported]) -> None:
        """Take reports in. Waits while the inbox of a lane is full, which slows the stream that they come from."""
        by_lane: defaultdict[Lane, list[Reported]] = defaultdict(list)
        for reported in reports:
            by_lane[reported.session.lane_of(reported.token)].append(reported)
        if Lane.LIVE in by_lane:
            self._last_live = asyncio.get_running_loop().time()
        for lane in sorted(by_lane):
            await self._loops[lane].report(by_lane[lane])

    def give_back(self, session: Session, tokens: Sequence[Token]) -> None:
        """Hand tasks back unfinished, and note that the session does not have them any more."""
        for token in tokens:
            self._loops[session.lane_of(token)].give_back(session, [token])
            session.ended(token)

    async def commit_apart(self, connection: Any, results: Sequence[TaskResult], ends: Sequence[BodyEnd]) -> None:
        """Commit on another connection what no session reports; tokens without a session are those of ready tasks."""
        await self._loops[Lane.LIVE].commit_apart(connection, results, ends)

    async def go_on(self, connection: Any) -> bool:
        """Go on with a part of what follows from ends, and return whether there was any left."""
        return await self._loops[Lane.LIVE].go_on(connection)

    def wake(self) -> None:
        """Look for work to claim."""
        for loop in self._loops.values():
            loop.wake()

    def _bulk_quantum(self) -> int:
        now = asyncio.get_running_loop().time()
        return _BESIDE_LIVE if now - self._last_live < _LIVE_FOR else _ALONE
