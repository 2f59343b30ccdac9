"""Lines of user code's log on their way to the planner: bounded, and what is left out is counted.

Logs are best effort. Nobody waits for a line: where lines come faster than they can be sent, they are left out, and an
entry in their place says how many.
"""

from __future__ import annotations

from collections.abc import Iterable

from dalsegno.v1.executor_service_pb2 import LogLines, WrittenLine

CAPACITY = 1 << 20
"""Bytes that may wait in one place."""


class LogQueue:
    """Lines that wait to be sent. Not safe for threads.

    Args:
        capacity: How many bytes may wait.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lines: list[WrittenLine] = []
        self._size = 0
        # One entry an execution.
        self._left_out: dict[bytes, WrittenLine] = {}

    def __bool__(self) -> bool:
        return bool(self._lines or self._left_out)

    def add(self, lines: Iterable[WrittenLine]) -> None:
        """Add lines; what there is no room for is counted."""
        for line in lines:
            size = line.ByteSize()
            if line.line.left_out or self._size + size > self._capacity:
                self._leave_out(line)
            else:
                self._lines.append(line)
                self._size += size

    def take(self) -> LogLines:
        """Remove what waits, and return it."""
        taken = LogLines(lines=self._lines)
        taken.lines.extend(self._left_out.values())
        self._lines, self._left_out, self._size = [], {}, 0
        return taken

    def _leave_out(self, line: WrittenLine) -> None:
        entry = self._left_out.get(line.token.execution_id)
        if entry is None:
            entry = self._left_out[line.token.execution_id] = WrittenLine(token=line.token)
            entry.line.time.CopyFrom(line.line.time)
        entry.line.left_out += line.line.left_out or 1
