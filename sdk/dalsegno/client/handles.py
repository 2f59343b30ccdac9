"""What a started flow is to whoever started it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from dalsegno.client import left_behind
from dalsegno.client.warned import warn_of
from dalsegno.states import ExecutionState

if TYPE_CHECKING:
    from dalsegno.client.executions import Execution
    from dalsegno.client.reach import Reach

T = TypeVar("T")


class ExecutionHandle(Generic[T]):
    """An execution that was started or replayed.

    Attributes:
        exec_id: The UUID of the execution.
        name: The readable name of the run.
        original_exec_id: For a replay, the execution that it replays.
    """

    def __init__(self, execution: Execution, reach: Reach) -> None:
        self.exec_id = execution.exec_id
        self.name = execution.name
        self.original_exec_id = execution.original_exec_id
        self._flow = execution.flow
        self._reach = reach

    @property
    def status(self) -> ExecutionState:
        """The state that the execution has now."""
        return self.execution.status

    @property
    def execution(self) -> Execution:
        """The execution as it is now."""
        return self._reach.execution(self.exec_id)

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the end, and return what the flow returned.

        It warns of what is to be known of a replay: ``execution.warnings``.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: If it has not ended by then; it goes on regardless.
            UserCodeError: If the code of the flow or a step raised.
            DivergenceError: If the body did not repeat what was recorded.
            ExecutionError: If it failed otherwise, or was cancelled.
        """
        with left_behind.waiting_for(self.exec_id, self.name):
            finished = self._reach.finished(self.exec_id, timeout)
        finished.raise_failure()
        warn_of(finished)
        return cast("T", finished.result)

    def __repr__(self) -> str:
        return f"<ExecutionHandle {self.name} of {self._flow} {self.exec_id}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._flow)} · {escape(self.name)}<br><code>{self.exec_id}</code></p>"
