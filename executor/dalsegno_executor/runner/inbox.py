"""What comes for a body: answers to its reports, outcomes of its calls, and orders to end.

Any thread may post; everything else belongs to the body's thread.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable
from typing import TypeAlias

from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_BACKEND, Failure
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_DURABLE,
    ACK_STATUS_REJECTED,
    Ack,
    ResolvedCall,
)
from dalsegno.v1.value_pb2 import Outputs
from dalsegno_executor.runner.completions import Order
from dalsegno_executor.runner.control import BodyEnd, HandedBack, Refused

Outcome: TypeAlias = Outputs | Failure
Event: TypeAlias = Ack | ResolvedCall | BodyEnd


class Inbox:
    """The events of one body."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._unacknowledged: set[int] = set()
        self._outcomes: dict[int, Outcome] = {}
        self.ended = Order()
        self._wake: Callable[[], object] | None = None
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self.ending: BodyEnd | None = None

    def post(self, event: Event) -> None:
        """Add an event, from any thread."""
        self._events.put(event)
        wake = self._wake
        if wake is not None:
            wake()

    def wake_with(self, wake: Callable[[], object] | None) -> None:
        """Say what is called, in the poster's thread, at each event."""
        self._wake = wake

    def end(self, ending: BodyEnd) -> None:
        """End the body; what has ended it first stays the reason."""
        if self.ending is None:
            self.ending = ending

    def check(self) -> None:
        """Take what has come.

        Raises:
            BodyEnd: If the body is to end.
        """
        self.take_all()
        self._raise_ending()

    def take_all(self) -> None:
        """Take what has come, and wake coroutines that wait for it."""
        while not self._events.empty():
            self._take(self._events.get_nowait())
        if self._watchers:
            self._wake_watchers()

    def set_outcome(self, number: int, outcome: Outcome) -> None:
        """Note the outcome of a call; a repeated one changes nothing."""
        self._outcomes.setdefault(number, outcome)
        self.ended.add(number)

    def outcome(self, number: int) -> Outcome | None:
        """Return the outcome of a call, if it is there."""
        return self._outcomes.get(number)

    def expect(self, report_id: int) -> None:
        """Note that a report is about to be sent whose answer will be waited for."""
        self._unacknowledged.add(report_id)

    def wait_durable(self, report_id: int) -> None:
        """Wait until the planner has a report.

        Raises:
            BodyEnd: If it is refused, or the body is to end.
        """
        self._wait(lambda: report_id not in self._unacknowledged, None)

    def wait_outcome(self, number: int, timeout: float | None = None) -> Outcome:
        """Wait for the outcome of a call.

        Raises:
            TimeoutError: If it is not there after `timeout` seconds.
            BodyEnd: If the body is to end.
        """
        if not self._wait(lambda: number in self._outcomes, timeout):
            raise TimeoutError(f"call {number} has not ended after {timeout:g} s")
        return self._outcomes[number]

    def wait_next(self, count: int) -> None:
        """Wait until more calls than this have ended.

        Raises:
            BodyEnd: If the body is to end.
        """
        self._wait(lambda: len(self.ended) > count, None)

    async def until_durable(self, report_id: int) -> None:
        """Wait as `wait_durable` does, in a coroutine."""
        await self._until(lambda: report_id not in self._unacknowledged)

    async def until_outcome(self, number: int) -> Outcome:
        """Wait as `wait_outcome` does, in a coroutine."""
        await self._until(lambda: number in self._outcomes)
        return self._outcomes[number]

    def _wait(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        self.check()
        while not ready():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            try:
                self._take(self._events.get(timeout=left))
            except queue.Empty:
                return False
            self._raise_ending()
        return True

    async def _until(self, ready: Callable[[], bool]) -> None:
        self.check()
        if not ready():
            future = asyncio.get_running_loop().create_future()
            self._watchers.append((ready, future))
            await future
        self._raise_ending()

    def _wake_watchers(self) -> None:
        waiting = []
        for ready, future in self._watchers:
            if future.done():
                continue
            if self.ending is not None or ready():
                future.set_result(None)
            else:
                waiting.append((ready, future))
        self._watchers = waiting

    def _take(self, event: Event) -> None:
        match event:
            case BodyEnd():
                self.end(event)
            case ResolvedCall():
                failed = event.WhichOneof("outcome") == "failure"
                self.set_outcome(event.number, event.failure if failed else event.outputs)
            case Ack():
                self._take_ack(event)

    def _take_ack(self, ack: Ack) -> None:
        if ack.status == ACK_STATUS_DURABLE:
            self._unacknowledged.discard(ack.report_id)
        elif ack.status == ACK_STATUS_REJECTED:
            message = f"the planner could not record a call of the body: {ack.reason}"
            failure = Failure(
                origin=FAILURE_ORIGIN_BACKEND, message=message, exception_type="dalsegno.errors:BackendError"
            )
            self.end(Refused(failure))
        else:
            self.end(HandedBack(ack.reason))

    def _raise_ending(self) -> None:
        if self.ending is not None:
            raise self.ending
