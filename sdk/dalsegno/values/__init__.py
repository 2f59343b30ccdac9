"""Values that pass between steps: how they are encoded, compared and read again.

A codec is chosen by type when a value is encoded, and named in the payload:

=========  ==================================================================================================
codec      for
=========  ==================================================================================================
json       plain data as the JSON of any language; dataclasses, Pydantic models, enums, named tuples, dates,
           UUID, Decimal, paths, sets, tuples, dicts with other keys and NumPy scalars as ``{"$type": …}``
bytes      ``bytes``
text       strings above 16 KiB
npy        NumPy arrays
arrow      pandas, polars and pyarrow tables; each is read back by the library that it came from
bundle     a structure with such arrays, tables or large bytes inside: JSON, and parts beside it
pickle     anything else, only where ``DALSEGNO_ALLOW_PICKLE=1``
=========  ==================================================================================================

In JSON, a dict with a key ``$type`` is written as ``{"$type": "dict", "value": [[key, value], …]}``; no other
plain value needs an escape.
"""

from __future__ import annotations

from typing import Any

from dalsegno.values.codec import Codec
from dalsegno.values.encoded import (
    DEFAULT_PAYLOAD_LIMIT,
    PAYLOAD_LIMIT_SETTING,
    Encoded,
    check_size,
    checksum,
    payload_limit,
)
from dalsegno.values.jsontext import NO_VIEW, json_view, parse_json_text
from dalsegno.values.plain import has_tags
from dalsegno.values.registry import ALLOW_PICKLE_SETTING, Codecs

__all__ = [
    "ALLOW_PICKLE_SETTING",
    "DEFAULT_PAYLOAD_LIMIT",
    "NO_VIEW",
    "PAYLOAD_LIMIT_SETTING",
    "Codec",
    "Codecs",
    "Encoded",
    "check_size",
    "checksum",
    "decode",
    "default_codecs",
    "encode",
    "has_tags",
    "interpret",
    "json_view",
    "loads",
    "parse_json_text",
    "payload_limit",
    "register_codec",
    "seal",
    "verify",
]

default_codecs = Codecs()
"""The codecs of this process."""

encode = default_codecs.encode
decode = default_codecs.decode
interpret = default_codecs.interpret
seal = default_codecs.seal
verify = default_codecs.verify


def register_codec(codec: Codec) -> None:
    """Add a codec for types that have none.

    Do so in the module that defines the type, so that executors have it too.

    Raises:
        UsageError: If the codec's name is taken.
    """
    default_codecs.register(codec)


def loads(codec: str, data: bytes) -> Any:
    """Decode stored bytes by their codec's name."""
    return decode(Encoded(codec, data, b"", False))
