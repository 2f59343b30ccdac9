"""Values of records, as they are stored and as they are written."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from uuid import UUID

from dalsegno.client.given_values import ARTIFACT_KEY, VALUE_KEY
from dalsegno.errors import UsageError
from dalsegno.payloads import referenced_payload
from dalsegno.records.places import Misfit, unknown_key
from dalsegno.v1.value_pb2 import Binding, Payload
from dalsegno.values import Encoded, encode, has_tags, seal

PAYLOAD_KEY = "$payload"
FORMS = frozenset({ARTIFACT_KEY, VALUE_KEY, PAYLOAD_KEY})

_PAYLOAD_KEYS = frozenset({"codec", "content", "object_key", "digest", "size", "canonical"})
_MOST_KNOWN = 1_000
_SMALL = 64
_JSON_TYPES = frozenset({type(None), bool, int, float, str})
_KEPT_TYPES = _JSON_TYPES - {float}
"""Not floats: 0.0 equals -0.0, and is another value."""


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
    """Makes payloads of values as they are written in records."""

    def __init__(self, store: ValueStore) -> None:
        self.filled = 0
        """Bytes of the values that have been put into messages so far."""
        self._store = store
        self._inline_limit = store.inline_limit
        # Bindings to small plain values: records of many steps have the same few again and again.
        self._known: dict[tuple[type, Any], Binding] = {}

    def fill(self, payload: Payload, value: Any) -> None:
        """Put a value into a payload.

        Raises:
            Misfit: If it is not one.
            NotFoundError: If it is an artifact that does not exist.
        """
        if type(value) is dict and len(value) == 1 and not FORMS.isdisjoint(value):
            if VALUE_KEY not in value:
                self._fill_form(payload, value)
                return
            value = value[VALUE_KEY]
        encoded = _encoded(value)
        data = encoded.data
        if len(data) > self._inline_limit:
            self._store.put(encoded)
            payload.CopyFrom(referenced_payload(encoded))
            return
        self.filled += len(data)
        payload.codec = encoded.codec
        payload.digest = encoded.digest
        payload.size = len(data)
        payload.canonical = encoded.canonical
        payload.inline = data

    def fill_binding(self, binding: Binding, value: Any) -> None:
        """Bind an input to a value.

        Raises:
            Misfit: If it is not one.
            NotFoundError: If it is an artifact that does not exist.
        """
        kind = type(value)
        known = self._known.get((kind, value)) if kind in _KEPT_TYPES else None
        if known is not None:
            binding.CopyFrom(known)
            return
        self.fill(binding.value, value)
        binding.digest, binding.canonical = binding.value.digest, binding.value.canonical
        if kind in _KEPT_TYPES and len(self._known) < _MOST_KNOWN and binding.value.size <= _SMALL:
            kept = self._known[kind, value] = Binding()
            kept.CopyFrom(binding)

    def _fill_form(self, payload: Payload, value: Mapping[str, Any]) -> None:
        if PAYLOAD_KEY in value:
            _fill_encoded(payload, value[PAYLOAD_KEY])
            self.filled += payload.size
            return
        try:
            artifact = UUID(str(value[ARTIFACT_KEY]))
        except ValueError:
            raise Misfit(f"{value[ARTIFACT_KEY]!r} is not the ID of an artifact, which is a UUID") from None
        payload.CopyFrom(self._store.artifact(artifact))


def value_form(payload: Payload, content: Callable[[Payload], bytes] | None = None) -> Any:
    """Return a value as it is written in a record.

    Args:
        payload: The value.
        content: Fetches what is not inline; without it, a reference to it is written.
    """
    data = payload.inline
    if payload.WhichOneof("content") == "object_key":
        if content is None:
            return {PAYLOAD_KEY: _described(payload) | {"size": payload.size, "object_key": payload.object_key}}
        data = content(payload)
    if payload.codec == "json":
        tree = json.loads(data)
        return {VALUE_KEY: tree} if type(tree) is dict and len(tree) == 1 and not FORMS.isdisjoint(tree) else tree
    if payload.codec == "text":
        return data.decode()
    return {PAYLOAD_KEY: _described(payload) | {"content": base64.b64encode(data).decode()}}


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


def _fill_encoded(payload: Payload, form: Any) -> None:
    if (
        type(form) is not dict
        or not isinstance(form.get("codec"), str)
        or ("content" in form) == ("object_key" in form)
    ):
        raise Misfit(f'{{"{PAYLOAD_KEY}": …}} needs a codec, and content in base64 or an object_key')
    wrong = unknown_key(form, _PAYLOAD_KEYS)
    if wrong is not None:
        raise wrong
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


def _described(payload: Payload) -> dict[str, Any]:
    described: dict[str, Any] = {"codec": payload.codec, "digest": payload.digest.hex()}
    return described if payload.canonical else described | {"canonical": False}
