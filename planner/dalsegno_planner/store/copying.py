"""Rows of graphs in the binary format of COPY, written directly: there may be millions, and much is the same in most.

The format is that of "Binary Format" in Postgres' documentation of COPY: a header, rows, a trailer; in a row the number
of its fields, and each as its length and its content.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER = struct.pack("!h", -1)
_NULL = struct.pack("!i", -1)
_NO_MOMENTS = _NULL + _NULL
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_INT4, _TEXT = 23, 25
"""Object IDs of the types of arrays' elements."""
NO_INTEGERS = struct.pack("!iiii", 12, 0, 0, _INT4)
_NO_TEXTS = struct.pack("!iiii", 12, 0, 0, _TEXT)

length = struct.Struct("!i").pack
"""What comes before the content of a field."""
_integer = struct.Struct("!ii").pack
_integer_pair = struct.Struct("!iiii").pack
_integers_and_length = struct.Struct("!iiiii").pack
_moment = struct.Struct("!iq").pack
_array = struct.Struct("!iiiiii").pack
_one_integer = struct.Struct("!iiiiiiii").pack
_edge = struct.Struct("!hi16siiii").pack


async def document(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield what is sent to COPY for rows, of which each part has any number."""
    yield _HEADER
    for part in parts:
        yield part
    yield _TRAILER


def row_start(field_count: int, key: UUID) -> bytes:
    """The beginning of a row whose first field is a UUID."""
    return struct.pack("!hi16s", field_count, 16, key.bytes)


def edge(execution: bytes, upstream: int, downstream: int) -> bytes:
    """A whole row of an edge; the execution's ID comes as its bytes."""
    return _edge(3, 16, execution, 4, upstream, 4, downstream)


def integers(first: int, second: int) -> bytes:
    """Two fields."""
    return _integer_pair(4, first, 4, second)


def integers_and_length(first: int, second: int, following: int) -> bytes:
    """Two fields, and the length of the next one."""
    return _integers_and_length(4, first, 4, second, following)


def text(value: str) -> bytes:
    """One field."""
    content = value.encode()
    return length(len(content)) + content


def binary(value: bytes | None) -> bytes:
    """One field."""
    return _NULL if value is None else length(len(value)) + value


def moments(first: datetime | None, second: datetime | None) -> bytes:
    """Two fields; a moment has a time zone."""
    return _NO_MOMENTS if first is second is None else _moment_field(first) + _moment_field(second)


def _moment_field(value: datetime | None) -> bytes:
    return _NULL if value is None else _moment(8, (value - _EPOCH) // _MICROSECOND)


def integer_array(values: Sequence[int]) -> bytes:
    """One field."""
    count = len(values)
    if not count:
        return NO_INTEGERS
    if count == 1:
        return _one_integer(28, 1, 0, _INT4, 1, 1, 4, values[0])
    return _array(20 + 8 * count, 1, 0, _INT4, count, 1) + b"".join(_integer(4, value) for value in values)


def text_array(values: Sequence[str]) -> bytes:
    """One field."""
    if not values:
        return _NO_TEXTS
    content = b"".join(map(text, values))
    return _array(20 + len(content), 1, 0, _TEXT, len(values), 1) + content
