"""Messages on a socket pair: four bytes of length, little-endian, then the serialized message."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

_HEADER = struct.Struct("<I")
FRAME_LIMIT = 1 << 30
"""No frame is as long as this; a length above it means that the two ends are out of step."""


class FrameError(Exception):
    """What came is no frame."""


def frame(message: Message) -> bytes:
    """Return a message as it is written to the socket."""
    data = message.SerializeToString()
    return _HEADER.pack(len(data)) + data


class FrameReader:
    """Cuts what arrives into messages."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read, and return the messages that are complete now.

        Raises:
            FrameError: If a length makes no sense.
        """
        # Most reads are of whole messages, which are cut from what was read.
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            buffer = self._rest
        start, messages = 0, []
        while len(buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, start)
            if length > FRAME_LIMIT:
                raise FrameError(f"a frame of {length:,} bytes; the limit is {FRAME_LIMIT:,}")
            end = start + _HEADER.size + length
            if len(buffer) < end:
                break
            messages.append(bytes(buffer[start + _HEADER.size : end]))
            start = end
        if buffer is data:
            self._rest += data[start:]
        else:
            del self._rest[:start]
        return messages

    @property
    def pending(self) -> int:
        """How many bytes of an incomplete message have arrived."""
        return len(self._rest)
