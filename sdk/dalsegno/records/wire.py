"""Messages in the format of protobuf, written directly: that costs a fraction of objects that are serialized at once.

A message is its fields one after the other; a field is its tag, and then a number, or the length of a content and that
content. Of a field that comes twice the later one counts, and where it is a message the two become one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from google.protobuf.descriptor import Descriptor

_NUMBER, _CONTENT = 0, 2
"""The two types of fields that are written here."""
_MOST_KNOWN = 1_024


def varint(number: int) -> bytes:
    """Return a number from 0, seven bits to a byte, the lowest first."""
    if number < 1 << 7:
        return bytes((number,))
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    if number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128)) + varint(number >> 21)


def number_tag(message: Descriptor, name: str) -> bytes:
    """Return what comes before a number or a truth value."""
    return _tag(message, name, _NUMBER)


def content_start(message: Descriptor, name: str) -> Callable[[int], bytes]:
    """Return what makes of the length of a text, of bytes or of a message what comes before it."""
    tag = _tag(message, name, _CONTENT)
    return lru_cache(_MOST_KNOWN)(lambda length: tag + varint(length))


def text_field(message: Descriptor, name: str) -> Callable[[str], bytes]:
    """Return what makes a whole field of a text; for texts that are often the same."""
    start = content_start(message, name)

    @lru_cache(_MOST_KNOWN)
    def whole(text: str) -> bytes:
        content = text.encode()
        return start(len(content)) + content

    return whole


def map_entry(message: Descriptor, name: str) -> Descriptor:
    """Return the message that the entries of a map are."""
    entry = message.fields_by_name[name].message_type
    assert entry is not None, f"{name} is a map"
    return entry


def _tag(message: Descriptor, name: str, kind: int) -> bytes:
    return varint(message.fields_by_name[name].number << 3 | kind)
