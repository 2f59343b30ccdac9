"""The runner's end of the socket pair to its stream process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TypeAlias

from dalsegno.v1.executor_service_pb2 import (
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    Heartbeat,
    Report,
    StepProgress,
)
from dalsegno_executor.framing import FrameReader, frame
from dalsegno_executor.runner.log_buffer import LogBuffer
from dalsegno_executor.tokens import TaskKey, key_of

_READ_SIZE = 256 * 1024

_Item: TypeAlias = Report | ExecutorServiceWorkRequest


class Channel:
    """Sends and receives messages; any thread may send.

    What several threads send at the same time goes out together: one of them writes for all.

    Attributes:
        log: What user code has written; it goes before everything that is sent after it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.log = LogBuffer(self.flush)
        self._socket = sock
        self._lock = threading.Lock()
        self._messages: list[ExecutorServiceWorkRequest] = []
        # The last of them, where it is one of reports: consecutive reports go in one message.
        self._reports: ExecutorServiceWorkRequest | None = None
        self.held_back = 0
        """How many reports and messages wait for a `flush`."""
        # Of each call the latest.
        self._progress: dict[tuple[TaskKey, int], StepProgress] = {}
        self._writing = False
        self._closed = False

    def add(self, item: _Item) -> None:
        """Queue a report, as it is now, or another message for the next `flush`."""
        with self._lock:
            self.held_back += 1
            if not isinstance(item, Report):
                self._messages.append(item)
                self._reports = None
                return
            if self._reports is None:
                self._reports = ExecutorServiceWorkRequest()
                self._messages.append(self._reports)
            self._reports.reports.reports.append(item)

    def send(self, item: _Item) -> None:
        """Send a report or another message, after those that are queued."""
        self.add(item)
        self.flush()

    def keep_progress(self, progress: StepProgress) -> None:
        """Keep how far a call has come; it goes with what is sent next, or before long."""
        with self._lock:
            self._progress[key_of(progress.token), progress.number] = progress
        self.log.set_due()

    def flush(self) -> None:
        """Send what is queued; returns at once where another thread does so already."""
        while True:
            with self._lock:
                if self._writing or not (self._messages or self.log or self._progress):
                    return
                self._writing = True
                messages, self._messages = self._messages, []
                self._reports, self.held_back = None, 0
                if self._progress:
                    heartbeat = Heartbeat(progress=self._progress.values())
                    self._progress.clear()
                    messages.insert(0, ExecutorServiceWorkRequest(heartbeat=heartbeat))
                if self.log:
                    messages.insert(0, ExecutorServiceWorkRequest(log_lines=self.log.take()))
            try:
                self._write(messages)
            finally:
                with self._lock:
                    self._writing = False

    def messages(self) -> Iterator[ExecutorServiceWorkResponse]:
        """Yield what the stream process sends, until it closes the socket."""
        reader = FrameReader()
        while data := self._read():
            for message in reader.feed(data):
                yield ExecutorServiceWorkResponse.FromString(message)

    def close(self) -> None:
        """Close the socket; a reader of it comes to its end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError):  # the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_READ_SIZE)
        except OSError:  # closed, at one end or the other
            return b""

    def _write(self, messages: list[ExecutorServiceWorkRequest]) -> None:
        try:
            self._socket.sendall(b"".join(map(frame, messages)))
        except OSError:
            # The stream process is gone, and with it whoever would want this. The reader notices, and ends the runner.
            return
