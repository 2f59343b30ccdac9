"""Values as clients give them, made into payloads as they are stored."""

from __future__ import annotations

import json
from typing import assert_never
from uuid import UUID

from dalsegno.errors import UsageError
from dalsegno.v1.value_pb2 import Payload, Value
from dalsegno.values import Encoded, encode, parse_json_text, seal
from dalsegno_planner.rpc.convert import optional_uuid
from dalsegno_planner.store import artifacts
from dalsegno_planner.store.objects import Objects, check_key
from dalsegno_planner.store.pool import Connection

DIGEST_SIZE = 32

_TAG = "$type"


class ValueReader:
    """Checks values and completes them: their digests, and for large ones the object store.

    Args:
        objects: Takes what is above the inline limit.
        inline_limit: Bytes.
        payload_limit: Bytes above which a value is refused.
    """

    def __init__(self, objects: Objects, inline_limit: int, payload_limit: int) -> None:
        self._objects = objects
        self._inline_limit = inline_limit
        self._payload_limit = payload_limit
        self._small = min(inline_limit, payload_limit)

    async def read(self, connection: Connection | None, value: Value, what: str) -> Payload:
        """Return the payload that a value stands for.

        Args:
            connection: Where artifacts are looked up; needed only for a value that names one.
            value: What the client gave.
            what: How errors name it, such as ``inputs["xs"]``.

        Raises:
            UsageError: It is not a value, or too large.
            NotFoundError: There is no such artifact.
            StateError: The artifact's call has no single output.
        """
        match value.WhichOneof("kind"):
            case "payload":
                return await self.store(value.payload, what)
            case "json":
                return await self.store(payload_of(encode_json(value.json, what)), what)
            case "artifact_id":
                assert connection is not None
                wanted = optional_uuid(value.artifact_id, f"{what}.artifact_id") or UUID(int=0)
                return Payload.FromString((await artifacts.find(connection, wanted)).payload)
            case None:
                raise UsageError(f"{what} has no value; give a payload, an artifact ID or JSON", reason="MISSING_VALUE")
            case unreachable:
                assert_never(unreachable)

    async def store(self, payload: Payload, what: str) -> Payload:
        """Complete a payload, and put its content into the object store where it is large.

        Raises:
            UsageError: It is not one, or too large.
        """
        if self.complete(payload, what):
            payload.object_key = await self._objects.put(payload.inline)
        return payload

    def is_complete(self, payload: Payload) -> bool:
        """Whether a payload needs no further look: inline, small, with its size and digest. The usual case."""
        return len(payload.digest) == DIGEST_SIZE and 0 < payload.size == len(payload.inline) <= self._small

    def complete(self, payload: Payload, what: str) -> bool:
        """Check a payload and fill in its size and digest where they are missing.

        Returns:
            Whether its content is too large to stay inline.

        Raises:
            UsageError: It is not a payload, or too large.
        """
        if payload.WhichOneof("content") == "inline":
            return self._complete_inline(payload, what)
        if not payload.object_key:
            raise UsageError(f"{what} has no content; give it inline or as an object key", reason="MISSING_CONTENT")
        check_key(payload.object_key)
        if len(payload.digest) != DIGEST_SIZE or not payload.codec:
            raise UsageError(
                f"{what} refers to the object {payload.object_key} and needs its codec and its digest of "
                f"{DIGEST_SIZE} bytes",
                reason="INVALID_DIGEST",
            )
        self.check_size(payload.size, payload.codec, what)
        return False

    def _complete_inline(self, payload: Payload, what: str) -> bool:
        size = len(payload.inline)
        self.check_size(size, payload.codec, what)
        payload.size = size
        if not payload.digest:
            sealed = _seal(payload, what)
            payload.digest, payload.canonical = sealed.digest, sealed.canonical
        elif len(payload.digest) != DIGEST_SIZE:
            raise UsageError(
                f"{what} has a digest of {len(payload.digest)} bytes; a digest has {DIGEST_SIZE}, or is left out",
                reason="INVALID_DIGEST",
            )
        return size > self._inline_limit

    def check_size(self, size: int, codec: str, what: str) -> None:
        """Refuse a value that is too large.

        Raises:
            UsageError: With reason ``PAYLOAD_TOO_LARGE``.
        """
        if size > self._payload_limit:
            raise UsageError(
                f"{what} takes {size:,} bytes (codec {codec!r}), more than the limit of {self._payload_limit:,}; "
                "store it elsewhere and pass its address, or raise DALSEGNO_PAYLOAD_LIMIT of the planner",
                reason="PAYLOAD_TOO_LARGE",
                fields={"size": str(size), "limit": str(self._payload_limit), "setting": "DALSEGNO_PAYLOAD_LIMIT"},
            )


def encode_json(text: str, what: str) -> Encoded:
    """Encode JSON text as the Python value would be; no class that its tags name is loaded.

    Raises:
        UsageError: It is not JSON.
    """
    try:
        tree = parse_json_text(text)
        if _TAG not in text:
            return encode(tree)
        return seal("json", json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode())
    except (UsageError, UnicodeEncodeError) as error:
        raise UsageError(f"{what}: {error}", reason="INVALID_JSON", fields={"field": what}) from None


def payload_of(encoded: Encoded) -> Payload:
    """Return a payload that carries its content."""
    return Payload(
        codec=encoded.codec,
        digest=encoded.digest,
        size=encoded.size,
        canonical=encoded.canonical,
        inline=encoded.data,
    )


def _seal(payload: Payload, what: str) -> Encoded:
    if not payload.codec:
        raise UsageError(f"{what} has no codec; JSON text has the codec `json`", reason="MISSING_CODEC")
    try:
        return seal(payload.codec, payload.inline)
    except UsageError as error:
        raise UsageError(f"{what}: {error}", reason=error.reason, fields={"field": what}) from None
