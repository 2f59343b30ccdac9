"""The stream process's end of a socket pair to a runner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dalsegno_executor.framing import FrameReader, frame

if TYPE_CHECKING:
    from google.protobuf.message import Message

_READ_SIZE = 256 * 1024


class Link:
    """Messages to and from one runner, on the running loop.

    Args:
        sock: The socket; closed by `close`.
        on_messages: Called with what has arrived.
        on_end: Called once, when the other end is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_messages: Callable[[Sequence[bytes]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._on_messages = on_messages
        self._on_end = on_end
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._flush_is_due = False
        self._waits_for_room = False
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read)

    def send(self, message: Message) -> None:
        """Send a message; what is sent in one turn of the loop goes out together."""
        if self._closed:
            return
        self._unsent += frame(message)
        if not self._flush_is_due and not self._waits_for_room:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def read_rest(self) -> None:
        """Take what has arrived and was not read yet: the last words of a process that is gone."""
        while not self._closed and self._read():
            pass

    def close(self) -> None:
        """Close the socket, which ends the runner."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> bool:
        try:
            data = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        messages = self._reader.feed(data)
        if messages:
            self._on_messages(messages)
        return True

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._closed or not self._unsent:
            return
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the reader notices too, after the runner's last words
            self._unsent.clear()
            return
        del self._unsent[:sent]
        self._wait_for_room(bool(self._unsent))

    def _wait_for_room(self, wait: bool) -> None:
        if wait and not self._waits_for_room:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        elif not wait and self._waits_for_room:
            self._loop.remove_writer(self._socket.fileno())
        self._waits_for_room = wait

    def _end(self) -> None:
        if not self._closed:
            self.close()
            self._on_end()
