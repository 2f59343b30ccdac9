"""The threads that run step tasks.

Reports of short steps are held back while more short steps are at hand, so that many go out in one message. Nothing is
held back while a step runs that may take long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from dalsegno.v1.executor_service_pb2 import Report, Task, TaskToken
from dalsegno_executor.runner.channel import Channel
from dalsegno_executor.runner.coroutines import thread_loop
from dalsegno_executor.tokens import TaskKey, is_live, key_of

SHORT = 0.001
"""Seconds."""
MOST_HELD_BACK = 64
LONGEST_HELD_BACK = 0.002
"""Seconds."""


class StepThreads:
    """Runs step tasks in a fixed number of threads: live ones first, otherwise in the order in which they come.

    Args:
        channel: Takes the reports.
        run: Runs one task and returns its report.
    """

    def __init__(self, channel: Channel, run: Callable[[Task], Report]) -> None:
        self._channel = channel
        self._run = run
        self._live: deque[Task] = deque()
        self._bulk: deque[Task] = deque()
        # One item for each task, which may have been taken back since; a false one ends a thread.
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._seconds: dict[str, float] = {}
        self._count = 0

    def start(self, count: int) -> None:
        """Start threads."""
        self._count += count
        for number in range(count):
            threading.Thread(target=self._loop, name=f"step-{number + 1}", daemon=True).start()

    def run_here(self) -> None:
        """Run tasks in the calling thread, until `close`."""
        self._count += 1
        self._loop()

    def put(self, task: Task) -> None:
        """Add a task."""
        (self._live if is_live(task) else self._bulk).append(task)
        self._signals.put(True)

    def take_waiting(self, wanted: Collection[TaskKey] | None = None) -> list[TaskToken]:
        """Take back what has not started, or what is wanted of it, and return the tokens."""
        taken: list[TaskToken] = []
        for tasks in (self._live, self._bulk):
            kept = []
            while (task := _first_of(tasks)) is not None:
                if wanted is None or key_of(task.token) in wanted:
                    taken.append(task.token)
                else:
                    kept.append(task)
            # Those that come meanwhile stay behind them.
            tasks.extendleft(reversed(kept))
            for _ in kept:
                self._signals.put(True)
        return taken

    def close(self) -> None:
        """Let every thread end after what it runs."""
        for _ in range(self._count):
            self._signals.put(False)

    def _loop(self) -> None:
        goes_on = self._signals.get()
        while goes_on:
            task = _first_of(self._live) or _first_of(self._bulk)
            if task is not None:
                self._run_one(task)
            goes_on = self._wait()
        thread_loop.close()

    def _wait(self) -> bool:
        try:
            return self._signals.get_nowait()
        except queue.Empty:
            self._channel.flush()
            return self._signals.get()

    def _run_one(self, task: Task) -> None:
        name = task.definition.name
        if self._channel.held_back and self._seconds.get(name, 1.0) > SHORT:
            self._channel.flush()
        started = time.perf_counter()
        report = self._run(task)
        self._seconds[name] = seconds = time.perf_counter() - started
        self._channel.add(report)
        if seconds > LONGEST_HELD_BACK or self._channel.held_back >= MOST_HELD_BACK:
            self._channel.flush()


def _first_of(tasks: deque[Task]) -> Task | None:
    """Take the first task, if there is one. Any thread may take it."""
    try:
        return tasks.popleft()
    except IndexError:
        return None
