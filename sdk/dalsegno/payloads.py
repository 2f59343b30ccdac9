"""Values as they travel: encoded, inline while they are small, by reference once they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dalsegno.errors import BackendError, UsageError
from dalsegno.object_store import ObjectReader, ObjectStore, object_key
from dalsegno.values import Encoded, check_size, decode, encode, verify

if TYPE_CHECKING:
    from dalsegno.v1.value_pb2 import Payload

DEFAULT_INLINE_LIMIT = 64 * 1024


def to_payload(
    encoded: Encoded,
    store: ObjectStore | None,
    inline_limit: int = DEFAULT_INLINE_LIMIT,
    payload_limit: int | None = None,
    *,
    what: str = "the value",
    payload: Payload | None = None,
) -> Payload:
    """Turn an encoded value into a payload; a large one is in the store when this returns.

    Args:
        encoded: The value.
        store: Takes what is larger than the inline limit; without one everything travels inline.
        inline_limit: Bytes.
        payload_limit: Bytes; the default or ``DALSEGNO_PAYLOAD_LIMIT`` where none is given.
        what: How an error names the value.
        payload: An empty message that is filled in and returned; without it a new one.

    Raises:
        UsageError: With reason ``PAYLOAD_TOO_LARGE``.
        BackendError: If the store cannot be written.
    """
    check_size(encoded, payload_limit, what=what)
    if store is None or encoded.size <= inline_limit:
        return inline_payload(encoded, payload)
    payload = referenced_payload(encoded, payload)
    store.put(payload.object_key, encoded.data)
    return payload


def encode_named(value: object, what: str) -> Encoded:
    """Encode a value; an error says which one it was.

    Args:
        value: The value.
        what: How an error names it, such as ``argument 'rate' of flow 'train'``.

    Raises:
        UsageError: If some part of it has no codec.
    """
    try:
        return encode(value)
    except UsageError as error:
        raise UsageError(
            f"{what}: {error.message}", reason=error.reason, fields=error.fields, problems=error.problems
        ) from error


def inline_payload(encoded: Encoded, payload: Payload | None = None) -> Payload:
    """Return a payload that carries its content: an empty one that is given, or a new one."""
    payload = _described(encoded, payload)
    payload.inline = encoded.data
    return payload


def referenced_payload(encoded: Encoded, payload: Payload | None = None) -> Payload:
    """Return a payload that says where the content is, or is going to be: an empty one that is given, or a new one."""
    payload = _described(encoded, payload)
    payload.object_key = object_key(encoded.checksum)
    return payload


def _described(encoded: Encoded, payload: Payload | None) -> Payload:
    if payload is None:
        from dalsegno.v1.value_pb2 import Payload

        payload = Payload()
    payload.codec = encoded.codec
    payload.digest = encoded.digest
    payload.size = encoded.size
    payload.canonical = encoded.canonical
    return payload


def read_payload(payload: Payload, store: ObjectReader | None) -> Encoded:
    """Return the content of a payload, checked: by its digest inline, by its address in the store.

    Raises:
        BackendError: If the content is not what was stored, or there is no store to read it from.
        NotFoundError: If the object is gone.
    """
    if payload.WhichOneof("content") != "object_key":
        encoded = Encoded(payload.codec, payload.inline, payload.digest, payload.canonical)
        if payload.digest:
            verify(encoded)
        return encoded
    if store is None:
        raise BackendError(
            f"the value {payload.object_key} is in an object store, and none is known here",
            reason="OBJECT_STORE",
            fields={"object_key": payload.object_key},
        )
    return Encoded(payload.codec, store.get(payload.object_key), payload.digest, payload.canonical)


def from_payload(payload: Payload, store: ObjectReader | None) -> Any:
    """Return the value of a payload: a new object at every call.

    Raises:
        BackendError: If the content is not what was stored, or cannot be read.
        NotFoundError: If the object is gone.
        UsageError: If its codec is not known here.
    """
    return decode(read_payload(payload, store))
