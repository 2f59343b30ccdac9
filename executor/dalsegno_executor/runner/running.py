"""The calls of user code that run in this process: each can be told to stop from another thread.

Plain code has an exception raised in its thread, which takes effect at its next bytecode. That must not hit our own
code, which would come to harm by it: so there is a window, open while the user's function runs, and who leaves it makes
sure that nothing comes any more. Calls into C that wait are woken by a signal where they are in the main thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import Token
from types import FrameType
from typing import Any, TypeVar

from dalsegno.step_context import StepCancelled, StepContext, current_step
from dalsegno.v1.execution_pb2 import Progress
from dalsegno.v1.executor_service_pb2 import StepProgress, TaskToken
from dalsegno_executor.attempts import timestamp
from dalsegno_executor.tokens import TaskKey, key_of

T = TypeVar("T")

_WAKE_UP = signal.SIGURG
"""Ignored by default, so that it does no harm wherever it arrives."""


class RunningCalls:
    """All calls that run in this process.

    Args:
        keep_progress: Takes what they say of themselves.
    """

    def __init__(self, keep_progress: Callable[[StepProgress], object] = lambda progress: None) -> None:
        self.keep_progress = keep_progress
        self.present: set[RunningCall] = set()
        """Added to and taken from in one operation each, so that no lock is needed where steps are short."""

    def call(self, token: TaskToken, number: int) -> RunningCall:
        """Return the context of a call, in which it can be stopped.

        Args:
            token: The task in which it runs.
            number: The number of the call.
        """
        return RunningCall(self, token, number)

    def stop(self, key: TaskKey) -> None:
        """Tell the code that runs for a task to stop."""
        for call in list(self.present):
            if call.key == key:
                call.stop()


class RunningCall:
    """One call of user code. As a context it is the step that runs in it."""

    __slots__ = ("_calls", "_number", "_open", "_reset", "_stop_async", "_stopping", "_thread", "key", "stopped")

    def __init__(self, calls: RunningCalls, token: TaskToken, number: int) -> None:
        self._calls = calls
        self.key = key_of(token)
        self._number = number
        self._thread = 0
        self._open = False
        self._stopping = False
        self._stop_async: Callable[[], object] | None = None
        self._reset: Token[StepContext | None] | None = None
        self.stopped = False

    def __enter__(self) -> RunningCall:
        self._calls.present.add(self)
        self._reset = current_step.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._reset is not None
        current_step.reset(self._reset)
        self._calls.present.discard(self)

    def say_progress(self, done: float, total: float | None, message: str) -> None:
        """Keep it; it is sent now and then."""
        said = Progress(done=done, total=total, message=message, at=timestamp(time.time_ns()))
        token = TaskToken(execution_id=self.key[0], number=self.key[1], epoch=self.key[2])
        self._calls.keep_progress(StepProgress(token=token, number=self._number, progress=said))

    def stop(self) -> None:
        """Tell it to stop, from another thread; once is enough."""
        if self.stopped:
            return
        self.stopped = True
        if self._stop_async is not None:
            self._stop_async()
            return
        # In this order: who leaves closes the window first, and then waits until nobody is about to raise.
        self._stopping = True
        if self._open:
            _raise_in(self._thread)
        self._stopping = False

    def run(self, function: Callable[[], T]) -> T:
        """Call plain code; `StepCancelled` may be raised in it.

        Raises:
            StepCancelled: If it is to stop, and has not caught this.
        """
        self._thread = threading.get_ident()
        self._open = True
        try:
            if self.stopped:
                raise StepCancelled
            return function()
        finally:
            self._leave()

    async def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await code; it is cancelled where it is to stop."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._stop_async = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            if self.stopped:
                task.cancel()
            return await coroutine
        finally:
            self._stop_async = lambda: None

    def _leave(self) -> None:
        while True:
            try:
                self._open = False
                while self._stopping:
                    time.sleep(0)
                if self.stopped:
                    _raise_in(self._thread, None)
            except StepCancelled:
                continue
            return


def answer_wake_ups() -> None:
    """Let what waits in the main thread be woken. Must be called in the main thread."""
    signal.signal(_WAKE_UP, _do_nothing)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Nothing: a pending exception is raised as soon as Python code runs, such as this."""


def _raise_in(thread: int, error: type[BaseException] | None = StepCancelled) -> None:
    """Have an exception raised in a thread, or with None take back one that has not been raised yet."""
    given = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), given)
    if error is not None and thread == threading.main_thread().ident and signal.getsignal(_WAKE_UP) is _do_nothing:
        signal.pthread_kill(thread, _WAKE_UP)
