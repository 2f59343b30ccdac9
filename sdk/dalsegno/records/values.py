"""Values of records, as they are stored and as they are written."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from dalsegno.client.given_values import ARTIFACT_KEY, VALUE_KEY
from dalsegno.errors import UsageError
from dalsegno.payloads import referenced_payload
from dalsegno.records.places import Misfit, unknown_key
from dalsegno.records.wire import content_start, number_tag, varint
from dalsegno.v1.value_pb2 import Binding, Payload
from dalsegno.values import Encoded, encode, has_tags, seal

PAYLOAD_KEY = "$payload"
FORMS = frozenset({ARTIFACT_KEY, VALUE_KEY, PAYLOAD_KEY})

_PAYLOAD_KEYS = frozenset({"codec", "content", "object_key", "digest", "size", "canonical"})
_MOST_KNOWN = 1_000
_SMALL = 128
"""Bytes of a payload."""
_JSON_TYPES = frozenset({type(None), bool, int, float, str})
_KEPT_TYPES = _JSON_TYPES - {float}
"""Not floats: 0.0 equals -0.0, and is another value."""

_decode = json.JSONDecoder().decode
_inline_start = content_start(Payload.DESCRIPTOR, "inline")
_value_start = content_start(Binding.DESCRIPTOR, "value")
_passed_digest_start = content_start(Binding.DESCRIPTOR, "digest")
_PASSED_CANONICAL = Binding(canonical=True).SerializeToString()


class ValueStore(Protocol):
    """Where values are that do not stay in the record."""

    @property
    def inline_limit(self) -> int:
        """Bytes up to which a value stays in a message."""
        ...

    def put(self, encoded: Encoded) -> None:
        """Store a value under its key."""
        ...

    def artifact(self, id: UUID) -> Payload:
        """Return what is known of an artifact.

        Raises:
            NotFoundError: If there is none.
        """
        ...


class ValueReader:
    """Makes payloads of values as they are written in records, serialized."""

    def __init__(self, store: ValueStore) -> None:
        self._store = store
        self._inline_limit = store.inline_limit
        # Small plain values: records of many steps have the same few again and again.
        self._payloads: dict[tuple[type, Any], bytes] = {}
        self._bindings: dict[tuple[type, Any], bytes] = {}

    def fill(self, payload: Payload, value: Any) -> None:
        """Put a value into a payload.

        Raises:
            Misfit: If it is not one.
            NotFoundError: If it is an artifact that does not exist.
        """
        payload.MergeFromString(self.payload(value))

    def payload(self, value: Any) -> bytes:
        """Return the payload of a value.

        Raises:
            Misfit: If it is not one.
            NotFoundError: If it is an artifact that does not exist.
        """
        kind = type(value)
        known = self._payloads.get((kind, value)) if kind in _KEPT_TYPES else None
        if known is not None:
            return known
        payload, _, _ = self._described(value)
        if kind in _KEPT_TYPES and len(self._payloads) < _MOST_KNOWN and len(payload) <= _SMALL:
            self._payloads[kind, value] = payload
        return payload

    def binding(self, value: Any) -> bytes:
        """Return the binding of an input to a value.

        Raises:
            Misfit: If it is not one.
            NotFoundError: If it is an artifact that does not exist.
        """
        kind = type(value)
        known = self._bindings.get((kind, value)) if kind in _KEPT_TYPES else None
        if known is not None:
            return known
        payload, digest, canonical = self._described(value)
        binding = b"".join(
            (
                *(_value_start(len(payload)), payload),
                *(_passed_digest_start(len(digest)), digest),
                _PASSED_CANONICAL if canonical else b"",
            )
        )
        if kind in _KEPT_TYPES and len(self._bindings) < _MOST_KNOWN and len(payload) <= _SMALL:
            self._bindings[kind, value] = binding
        return binding

    def _described(self, value: Any) -> tuple[bytes, bytes, bool]:
        """The payload of a value, its digest, and whether that is canonical."""
        if type(value) is dict and len(value) == 1 and not FORMS.isdisjoint(value):
            if VALUE_KEY not in value:
                payload = self._of_form(value)
                return payload.SerializeToString(), payload.digest, payload.canonical
            value = value[VALUE_KEY]
        encoded = _encoded(value)
        data, digest, canonical = encoded.data, encoded.digest, encoded.canonical
        size = len(data)
        if size > self._inline_limit:
            self._store.put(encoded)
            return referenced_payload(encoded).SerializeToString(), digest, canonical
        start = _payload_start(encoded.codec, len(digest), canonical)
        return b"".join((start, digest, _size(size), _inline_start(size), data)), digest, canonical

    def _of_form(self, value: Mapping[str, Any]) -> Payload:
        if PAYLOAD_KEY in value:
            return _payload_of(value[PAYLOAD_KEY])
        try:
            artifact = UUID(str(value[ARTIFACT_KEY]))
        except ValueError:
            raise Misfit(f"{value[ARTIFACT_KEY]!r} is not the ID of an artifact, which is a UUID") from None
        return self._store.artifact(artifact)


@lru_cache(_MOST_KNOWN)
def _payload_start(codec: str, digest_size: int, canonical: bool) -> bytes:
    """Return a payload up to its digest."""
    start = Payload(codec=codec, canonical=canonical).SerializeToString()
    return start + content_start(Payload.DESCRIPTOR, "digest")(digest_size)


@lru_cache(_MOST_KNOWN)
def _size(size: int) -> bytes:
    return number_tag(Payload.DESCRIPTOR, "size") + varint(size)


def value_form(payload: Payload, content: Callable[[Payload], bytes] | None = None) -> Any:
    """Return a value as it is written in a record.

    Args:
        payload: The value.
        content: Fetches what is not inline; without it, a reference to it is written.
    """
    data = payload.inline
    if payload.WhichOneof("content") == "object_key":
        if content is None:
            return {PAYLOAD_KEY: _description(payload) | {"size": payload.size, "object_key": payload.object_key}}
        data = content(payload)
    if payload.codec == "json":
        tree = _decode(data.decode())
        return {VALUE_KEY: tree} if type(tree) is dict and len(tree) == 1 and not FORMS.isdisjoint(tree) else tree
    if payload.codec == "text":
        return data.decode()
    return {PAYLOAD_KEY: _description(payload) | {"content": base64.b64encode(data).decode()}}


def _encoded(value: Any) -> Encoded:
    try:
        encoded = encode(value)
        if encoded.codec == "json" and has_tags(encoded.data) and _is_json(value):
            # The tags are those of the record: it is stored as it is written.
            return seal("json", json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    except UsageError as error:
        raise Misfit(error.message) from error
    return encoded


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_json, value.values()))
    return all(map(_is_json, value)) if kind is list else kind in _JSON_TYPES


def _payload_of(form: Any) -> Payload:
    if (
        type(form) is not dict
        or not isinstance(form.get("codec"), str)
        or ("content" in form) == ("object_key" in form)
    ):
        raise Misfit(f'{{"{PAYLOAD_KEY}": …}} needs a codec, and content in base64 or an object_key')
    wrong = unknown_key(form, _PAYLOAD_KEYS)
    if wrong is not None:
        raise wrong
    payload = Payload()
    try:
        payload.codec = form["codec"]
        payload.canonical = bool(form.get("canonical", True))
        payload.digest = bytes.fromhex(form.get("digest", ""))
        if "object_key" in form:
            payload.object_key = form["object_key"]
            payload.size = form.get("size", 0)
        else:
            payload.inline = base64.b64decode(form["content"], validate=True)
            payload.size = len(payload.inline)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Misfit(f'{{"{PAYLOAD_KEY}": …}}: {error}') from error
    return payload


def _description(payload: Payload) -> dict[str, Any]:
    described: dict[str, Any] = {"codec": payload.codec, "digest": payload.digest.hex()}
    return described if payload.canonical else described | {"canonical": False}
