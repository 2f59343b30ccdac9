"""Runs ``async def`` code in threads that have no loop of their own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any


class ThreadLoop(threading.local):
    """One event loop for each thread, made at its first use and kept: making one costs more than most steps."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, object]) -> object:
        """Run a coroutine to its end, in the present context: a runner keeps that of its first run."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine, context=contextvars.copy_context())

    def close(self) -> None:
        """Close this thread's loop, if it has one."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


thread_loop = ThreadLoop()
