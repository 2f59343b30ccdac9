"""Replays that run in the calling thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dalsegno.client.executions import Execution
from dalsegno.errors import DalsegnoError
from dalsegno.local.debugging import debug_session
from dalsegno.v1.execution_service_pb2 import ExecutionServiceCancelRequest

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach
    from dalsegno.v1.replay_service_pb2 import CodeVersion


def run_debugged(reach: Reach, code: CodeVersion, create: Callable[[], Execution]) -> Execution:
    """Create a replay, run it in this thread, and return it once it has ended.

    Args:
        reach: The planner.
        code: Its code; what `create` sends of it is pinned to this process.
        create: Creates it, as one that is debugged.

    Raises:
        BackendError: If the planner is gone. The replay is cancelled then, as nobody else could go on with it.
        KeyboardInterrupt: If the user interrupts it; it is cancelled too.
    """
    with debug_session(reach.connection) as session:
        code.definition.pinned_digest = session.pin
        for step in code.steps:
            step.definition.pinned_digest = session.pin
        execution = create()
        end = _End(reach, execution, session.wake)
        try:
            session.run_until(end.is_there)
        except BaseException:
            _cancel(reach, execution)
            raise
        return end.execution()


class _End:
    """Waits for the end of an execution, beside the thread that runs it."""

    def __init__(self, reach: Reach, execution: Execution, on_end: Callable[[], None]) -> None:
        self._reach = reach
        self._started = execution
        self._on_end = on_end
        self._ended: Execution | None = None
        self._error: DalsegnoError | None = None
        threading.Thread(target=self._watch, name="dalsegno-debug-end", daemon=True).start()

    def is_there(self) -> bool:
        """Return whether the execution has ended, or nothing can be known of it."""
        return self._ended is not None or self._error is not None

    def execution(self) -> Execution:
        """Return the execution that has ended.

        Raises:
            DalsegnoError: If nothing can be known of it.
        """
        if self._error is not None:
            raise self._error
        assert self._ended is not None
        return self._ended

    def _watch(self) -> None:
        try:
            self._ended = self._reach.finished(self._started, telling=False)  # the session says it itself
        except DalsegnoError as error:
            self._error = error
        self._on_end()


def _cancel(reach: Reach, execution: Execution) -> None:
    request = ExecutionServiceCancelRequest(execution=execution.exec_id, reason="its debugging was interrupted")
    with suppress(DalsegnoError):  # it has ended after all, or the planner is gone: what was raised says more
        reach.connection.call(lambda stubs: stubs.executions.Cancel, request)
