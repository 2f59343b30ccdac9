"""A structure and its parts in one payload.

Layout: the four bytes ``DSB1``; the length of the header, big-endian in four bytes; the header, which is JSON
``{"value": tree, "parts": [{"codec": …, "size": …}, …]}``; the parts, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dalsegno.values.encoded import Encoded
from dalsegno.values.plain import read_json, write_json
from dalsegno.values.refusal import Refusal

BUNDLE = "bundle"
_MAGIC = b"DSB1"
_START = len(_MAGIC) + 4


@dataclass(frozen=True, slots=True)
class Segment:
    """One part as it lies in a bundle."""

    codec: str
    data: bytes


def pack(tree: Any, parts: Sequence[Encoded]) -> bytes:
    """Lay out a structure and its parts."""
    header = write_json({"value": tree, "parts": [{"codec": part.codec, "size": part.size} for part in parts]})
    return b"".join([_MAGIC, len(header).to_bytes(4, "big"), header, *(part.data for part in parts)])


def unpack(data: bytes) -> tuple[Any, list[Segment]]:
    """The structure and its parts, undecoded.

    Raises:
        Refusal: If the layout is broken.
    """
    if data[:4] != _MAGIC or len(data) < _START:
        raise Refusal("not a bundle: it does not start with DSB1", reason="CORRUPT_VALUE")
    position = _START + int.from_bytes(data[4:_START], "big")
    header = read_json(data[_START:position])
    try:
        tree, parts = header["value"], [(str(part["codec"]), int(part["size"])) for part in header["parts"]]
    except (LookupError, TypeError, ValueError) as error:
        raise Refusal(f"not a bundle: its header is wrong: {error!r}", reason="CORRUPT_VALUE") from None
    segments = []
    for codec, size in parts:
        segments.append(Segment(codec, data[position : position + size]))
        position += max(size, 0)
    if position != len(data):
        raise Refusal(f"not a whole bundle: {len(data)} bytes where its header says {position}", reason="CORRUPT_VALUE")
    return tree, segments
