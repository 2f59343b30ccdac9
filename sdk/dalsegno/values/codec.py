"""The protocol of a codec, and those that need no library."""

from __future__ import annotations

import pickle
from typing import Any, Protocol, runtime_checkable

from dalsegno.values.refusal import Refusal

BYTES = "bytes"
TEXT = "text"
PICKLE = "pickle"


@runtime_checkable
class Codec(Protocol):
    """Turns values of some types into bytes and back; register one with `dalsegno.values.register_codec`.

    A codec is asked for what is not plain data and not of a standard-library type that has a JSON form. A
    value of its type may sit anywhere inside lists, dicts, dataclasses and models. ``encode`` may raise
    ``TypeError`` or ``ValueError`` to refuse a value.

    Attributes:
        name: Stored with each payload; never change what it stands for.
        canonical: Whether equal values give equal bytes in every process.
    """

    @property
    def name(self) -> str: ...

    @property
    def canonical(self) -> bool: ...

    def can_encode(self, value: object) -> bool: ...

    def encode(self, value: Any) -> bytes: ...

    def decode(self, data: bytes) -> Any: ...


class BytesCodec:
    """``bytes`` as they are."""

    name = BYTES
    canonical = True

    def can_encode(self, value: object) -> bool:
        return type(value) is bytes

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


class TextCodec:
    """Long strings as UTF-8, so that a stored document is a readable file."""

    name = TEXT
    canonical = True

    def can_encode(self, value: object) -> bool:
        return type(value) is str

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        return str(data, "utf-8")


class PickleCodec:
    """Anything that pickle takes; used only where it is allowed, because reading a pickle runs code."""

    name = PICKLE
    canonical = False

    def can_encode(self, value: object) -> bool:
        return True

    def encode(self, value: object) -> bytes:
        try:
            return pickle.dumps(value, protocol=5)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise Refusal(f"cannot be pickled: {error}", reason="NO_CODEC") from error

    def decode(self, data: bytes) -> object:
        return pickle.loads(data)  # noqa: S301 - only where the user allowed it
