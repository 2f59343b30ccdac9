"""A runner whose user code runs in one thread, the one that asks for it: so that a debugger can stop there.

One thread reads what the stream process says. The caller's thread runs tasks while it waits; where it waits inside a
body, for a step that the body has submitted, that step runs right there.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from dalsegno.decorators import Decorated
from dalsegno.definitions import definition_of
from dalsegno.v1.definition_pb2 import DefinitionKind
from dalsegno.v1.executor_service_pb2 import Announce, ExecutorServiceWorkRequest, Report, Task, TaskToken
from dalsegno_executor.runner.channel import Channel
from dalsegno_executor.runner.coroutines import thread_loop
from dalsegno_executor.runner.engine import Runner
from dalsegno_executor.runner.inbox import Event, Inbox
from dalsegno_executor.runner.step_threads import StepThreads
from dalsegno_executor.runner.workers import Work, Workers
from dalsegno_executor.tokens import TaskKey, key_of

Condition: TypeAlias = Callable[[], bool]

_INTERRUPTED = "builtins:KeyboardInterrupt"


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to run; `task` is that of a step, which can be taken back until it starts."""

    work: Work
    task: Task | None = None


class MainWork:
    """What is to run in the one thread. Any thread may add to it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[_Item] = deque()
        self._poked = False
        self.on_arrival: Callable[[], object] | None = None
        """Called in the thread of who adds something, while an event loop has the one thread."""

    def put(self, item: _Item) -> None:
        """Add something to run."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()
        self._tell()

    def poke(self) -> None:
        """Have whoever waits look again whether they still have to."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()
        self._tell()

    def take_back(self, wanted: Collection[TaskKey] | None) -> list[TaskToken]:
        """Remove steps that have not started, or those of them that are wanted, and return their tokens."""
        with self._changed:
            steps = [item.task for item in self._items if item.task is not None]
            taken = [task.token for task in steps if wanted is None or key_of(task.token) in wanted]
            gone = {key_of(token) for token in taken}
            self._items = deque(
                item for item in self._items if item.task is None or key_of(item.task.token) not in gone
            )
        return taken

    def run_until(self, done: Condition, timeout: float | None = None) -> bool:
        """Run what comes until a condition holds; return False if `timeout` seconds pass before.

        The condition is looked at after everything that has run, and after every `poke`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            item = self._next(deadline)
            if item is not None:
                item.work()
            elif deadline is not None and time.monotonic() >= deadline:
                return done()
        return True

    def run_present(self) -> None:
        """Run what is there."""
        while True:
            with self._changed:
                item = self._items.popleft() if self._items else None
            if item is None:
                return
            item.work()

    def _next(self, deadline: float | None) -> _Item | None:
        with self._changed:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._changed.wait_for(lambda: self._items or self._poked, left)
            self._poked = False
            return self._items.popleft() if self._items else None

    def _tell(self) -> None:
        on_arrival = self.on_arrival
        if on_arrival is not None:
            on_arrival()


class InlineRunner(Runner):
    """A runner for the tasks of one replay, in the thread that calls `run_until`.

    Args:
        sock: This process's end of a socket pair, whose other end a stream process has.
        pin: What the tasks of the replay are pinned to, instead of a digest: only this runner announces it.
        on_suspension: Called when the body has ended for a wait that nobody has answered.
    """

    def __init__(self, sock: socket.socket, pin: str, on_suspension: Callable[[], object]) -> None:
        super().__init__(Channel(sock), body_threads=1)
        self._work = MainWork()
        self._pin = pin
        self._on_suspension = on_suspension
        self._interrupted = False
        self.steps = _InlineSteps(self._channel, self._run_step, self._work, self._note)
        self._body_threads = _InlineBodies(self._work)
        self._reader = threading.Thread(target=self._read, name="dalsegno-debug", daemon=True)
        self.closed = False
        """Whether the stream process is gone."""

    def start(self) -> None:
        """Take tasks for what is announced."""
        self._reader.start()
        self.offer(1, 1)

    def poke(self) -> None:
        """Have `run_until` look at its condition; from any thread."""
        self._work.poke()

    def run_until(self, done: Condition) -> None:
        """Run tasks until a condition holds, or the stream process is gone.

        Raises:
            KeyboardInterrupt: If the user interrupts what runs.
        """
        try:
            self._work.run_until(lambda: self._interrupted or self.closed or done())
        finally:
            thread_loop.close()
        if self._interrupted:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Leave: what has not ended is given up."""
        self._channel.close()
        self._reader.join(timeout=5)

    def announce(self, objects: Iterable[Decorated[..., Any]]) -> None:
        """Say which code this process has, pinned. A definition without a kind is served, and not recorded."""
        added = list(objects)
        self._registry.add(added)
        definitions = [definition_of(decorated) for decorated in added]
        for definition in definitions:
            definition.kind = DefinitionKind.DEFINITION_KIND_UNSPECIFIED
            definition.digest = self._pin
        self._channel.send(ExecutorServiceWorkRequest(announce=Announce(definitions=definitions)))

    def report(self, report: Report) -> None:
        """Send a report. What a body submits comes back here, as its other calls would."""
        if report.call.HasField("definition"):
            report.call.definition.pinned_digest = self._pin
        self._note(report)
        super().report(report)

    def _take(self, task: Task) -> None:
        # Whatever version is asked for: the code is the one that is here.
        task.definition.pinned_digest = ""
        super()._take(task)

    def _new_inbox(self) -> Inbox:
        return _InlineInbox(self._work)

    def _run_step(self, task: Task) -> Report:
        step = self._registry.step(task.definition)
        if step is not None and step.is_async and asyncio._get_running_loop() is not None:
            return _in_another_thread(lambda: super(InlineRunner, self)._run_step(task))
        return super()._run_step(task)

    def _send_last(self, last: Report | ExecutorServiceWorkRequest) -> None:
        super()._send_last(last)
        if isinstance(last, Report):
            self._note(last)
            if last.HasField("suspended"):
                self._on_suspension()

    def _note(self, report: Report) -> None:
        failures = (
            report.failed.failure,
            report.attempt_failed.attempt.failure,
            report.call.failed.failure,
            *(attempt.failure for attempt in report.call.failed_attempts),
        )
        if any(failure.exception_type == _INTERRUPTED for failure in failures):
            self._interrupted = True

    def _read(self) -> None:
        try:
            self.serve()
        finally:
            self.closed = True
            self._work.poke()


class _InlineSteps(StepThreads):
    """Steps that run in the one thread."""

    def __init__(
        self, channel: Channel, run: Callable[[Task], Report], work: MainWork, note: Callable[[Report], object]
    ) -> None:
        super().__init__(channel, run)
        self._work = work
        self._note = note

    def put(self, task: Task) -> None:
        self._work.put(_Item(lambda: self._run_and_report(task), task))

    def take_waiting(self, wanted: Collection[TaskKey] | None = None) -> list[TaskToken]:
        return self._work.take_back(wanted)

    def close(self) -> None:
        """Nothing: the thread is the caller's."""

    def _run_and_report(self, task: Task) -> None:
        report = self._run(task)
        self._note(report)
        self._channel.send(report)


class _InlineBodies(Workers):
    """Bodies that run in the one thread."""

    def __init__(self, work: MainWork) -> None:
        super().__init__("body", 1)
        self._work = work

    def run(self, work: Work) -> None:
        self._work.put(_Item(work))

    def close(self) -> None:
        """Nothing: the thread is the caller's."""


class _InlineInbox(Inbox):
    """The events of a body whose thread runs steps while it waits for them."""

    def __init__(self, work: MainWork) -> None:
        super().__init__()
        self._work = work

    def post(self, event: Event) -> None:
        super().post(event)
        self._work.poke()

    def wake_with(self, wake: Callable[[], object] | None) -> None:
        super().wake_with(wake)
        self._work.on_arrival = wake

    def take_all(self) -> None:
        if self._wake is not None:
            # The body has given its thread to an event loop, which calls this when something has come.
            self._work.run_present()
        super().take_all()

    def _wait(self, ready: Condition, timeout: float | None) -> bool:
        def done() -> bool:
            self.check()
            return ready()

        return self._work.run_until(done, timeout)


def _in_another_thread(run: Callable[[], Report]) -> Report:
    """Run an async step where this thread has a running loop already: it needs one of its own."""
    reports: list[Report] = []

    def run_and_close() -> None:
        try:
            reports.append(run())
        finally:
            thread_loop.close()

    thread = threading.Thread(target=run_and_close)
    thread.start()
    thread.join()
    return reports[0]
