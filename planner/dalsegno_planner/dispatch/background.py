"""What runs beside requests and commits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)


class Background:
    """Tasks that nobody waits for, kept until they end. An error is logged: each handles those that it foresees."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run something beside the caller."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel what has not ended."""
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background_failed", exc_info=error)


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel what runs for as long as a planner does, and wait until it has ended; it may not have been started."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
