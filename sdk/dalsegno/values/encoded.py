"""What an encoded value is: the codec's name, the bytes, and two digests with different purposes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b

from dalsegno.errors import UsageError

DEFAULT_PAYLOAD_LIMIT = 256 * 1024 * 1024
PAYLOAD_LIMIT_SETTING = "DALSEGNO_PAYLOAD_LIMIT"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as it is stored and sent.

    ``digest`` answers "is this the same value?": it is taken over the codec's name and the *canonical* form,
    in which the order of a dict's keys does not count. ``data`` keeps that order, so two equal values may
    differ in their bytes: stored objects are addressed and checked by `checksum`, never by ``digest``.

    Attributes:
        codec: Name of the codec that wrote ``data`` and reads it.
        data: The payload.
        digest: BLAKE2b-256, 32 bytes.
        canonical: Whether equal values have equal digests in every process. Where it is false, a differing
            digest says nothing.
    """

    codec: str
    data: bytes
    digest: bytes
    canonical: bool

    @property
    def size(self) -> int:
        """Length of ``data`` in bytes."""
        return len(self.data)

    @property
    def checksum(self) -> bytes:
        """BLAKE2b-256 of exactly these bytes: their address in a content-addressed store."""
        return checksum(self.data)


def checksum(data: bytes) -> bytes:
    """BLAKE2b-256 of bytes as they are stored."""
    return blake2b(data, digest_size=32).digest()


def digest_of(codec: str, canonical_form: bytes) -> bytes:
    """BLAKE2b-256 over the codec's name, a zero byte and the canonical form."""
    state = blake2b(codec.encode() + b"\0", digest_size=32)
    state.update(canonical_form)
    return state.digest()


def payload_limit() -> int:
    """Largest payload in bytes, from ``DALSEGNO_PAYLOAD_LIMIT``; 256 MiB where it is not set.

    Raises:
        UsageError: If the setting is not a positive whole number.
    """
    text = os.environ.get(PAYLOAD_LIMIT_SETTING, "").strip()
    if not text:
        return DEFAULT_PAYLOAD_LIMIT
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(
            f"{PAYLOAD_LIMIT_SETTING}={text!r} is not a number of bytes; write it as {DEFAULT_PAYLOAD_LIMIT}",
            reason="INVALID_SETTING",
            fields={"setting": PAYLOAD_LIMIT_SETTING, "value": text},
        )
    return int(text)


def check_size(encoded: Encoded, limit: int | None = None, *, what: str = "the value") -> None:
    """Refuse a payload that is too large to be stored.

    Args:
        encoded: The payload.
        limit: Bytes; `payload_limit` where none is given.
        what: How the error names the value, such as ``input 'rows' of step 'train'``.

    Raises:
        UsageError: With reason ``PAYLOAD_TOO_LARGE``.
    """
    allowed = payload_limit() if limit is None else limit
    if encoded.size > allowed:
        raise UsageError(
            f"{what} takes {encoded.size:,} bytes (codec {encoded.codec!r}), more than the limit of "
            f"{allowed:,}; store it elsewhere and pass its address, or raise {PAYLOAD_LIMIT_SETTING}",
            reason="PAYLOAD_TOO_LARGE",
            fields={"size": str(encoded.size), "limit": str(allowed), "setting": PAYLOAD_LIMIT_SETTING},
        )
