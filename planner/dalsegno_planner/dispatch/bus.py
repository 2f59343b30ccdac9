"""Wake-ups within one planner: who waits for a change of an execution, and for work that became ready.

A wake-up carries no state. Whoever is woken looks at Postgres, so that a lost one costs a poll and never a result.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from dalsegno_planner.core.lanes import Lane


class Bus:
    """Connects those who change executions with those who wait for the changes."""

    def __init__(self) -> None:
        self._watchers: defaultdict[UUID, set[asyncio.Future[None]]] = defaultdict(set)
        self._state_watchers: defaultdict[UUID, set[asyncio.Future[None]]] = defaultdict(set)
        self._on_work: list[Callable[[Lane | None], None]] = []
        self._on_new_work: list[Callable[[], None]] = []
        self._on_cancel: list[Callable[[UUID], None]] = []
        self._on_return: list[Callable[[], None]] = []

    def execution_changed(self, execution_id: UUID, *, steps_only: bool = False) -> None:
        """Wake those who wait for a change of this execution, in this planner.

        With `steps_only`, not those who wait for a change of its own state.
        """
        woken = self._watchers.pop(execution_id, set())
        if not steps_only:
            woken |= self._state_watchers.pop(execution_id, set())
        for watcher in woken:
            if not watcher.done():
                watcher.set_result(None)

    def watch(self, execution_id: UUID, *, state_only: bool = False) -> asyncio.Future[None]:
        """Return a future that is done at the next change. Take it before looking at the state that it guards."""
        future = asyncio.get_running_loop().create_future()
        (self._state_watchers if state_only else self._watchers)[execution_id].add(future)
        return future

    async def wait(self, execution_id: UUID, change: asyncio.Future[None], timeout: float) -> None:
        """Return when `change`, from `watch`, is done, or after `timeout` seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(change, timeout)
        self.unwatch(execution_id, change)

    def unwatch(self, execution_id: UUID, change: asyncio.Future[None]) -> None:
        """Give up a future from `watch`."""
        for all_watchers in (self._watchers, self._state_watchers):
            watchers = all_watchers.get(execution_id)
            if watchers is not None:
                watchers.discard(change)
                if not watchers:
                    del all_watchers[execution_id]

    def wake_everyone(self) -> None:
        """Wake all who wait: some wake-ups may have been lost."""
        for execution_id in [*self._watchers, *self._state_watchers]:
            self.execution_changed(execution_id)

    def work_ready(self, lane: Lane | None = None) -> None:
        """Say that there may be work to claim, in this lane alone or in any."""
        for listener in self._on_work:
            listener(lane)

    def new_work(self, lane: Lane | None = None) -> None:
        """Say that there is work that was not there before: to this planner, and to the others."""
        self.work_ready(lane)
        for listener in self._on_new_work:
            listener()

    def cancelled(self, execution_id: UUID) -> None:
        """Say that an execution was cancelled, so that what runs of it is told to stop."""
        for listener in self._on_cancel:
            listener(execution_id)

    def tasks_returned(self) -> None:
        """Say that executors have tasks no more: others may take them, or what had to wait for their ends."""
        for listener in self._on_return:
            listener()

    def on_work(self, listener: Callable[[Lane | None], None]) -> None:
        """Call `listener` whenever there may be work to claim, with its lane where that is known."""
        self._on_work.append(listener)

    def on_new_work(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a request has brought work to this planner."""
        self._on_new_work.append(listener)

    def on_cancel(self, listener: Callable[[UUID], None]) -> None:
        """Call `listener` with each execution that is cancelled in this planner."""
        self._on_cancel.append(listener)

    def on_return(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever executors have lost tasks, or handed them back, in this planner."""
        self._on_return.append(listener)
