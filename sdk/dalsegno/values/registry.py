"""Which codec a value gets, and back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dalsegno.errors import BackendError, UsageError
from dalsegno.values.bundle import BUNDLE, pack, unpack
from dalsegno.values.codec import BYTES, PICKLE, TEXT, BytesCodec, Codec, PickleCodec, TextCodec
from dalsegno.values.encoded import Encoded, digest_of
from dalsegno.values.plain import (
    JSON,
    PART,
    TYPE_KEY,
    canonical_text,
    encode_plain,
    has_tags,
    json_digest,
    read_json,
    write_json,
)
from dalsegno.values.refusal import NESTED_TOO_DEEPLY, Refusal, unsupported
from dalsegno.values.tree import TreeReader, TreeWriter

T = TypeVar("T")

ALLOW_PICKLE_SETTING = "DALSEGNO_ALLOW_PICKLE"
LONG_TEXT = 16 * 1024
"""Strings longer than this are stored as text and not as JSON."""

_BYTES, _TEXT, _PICKLE = BytesCodec(), TextCodec(), PickleCodec()
_TABLE_LIBRARIES = frozenset({"pandas", "polars", "pyarrow"})
_BUILTIN = frozenset({JSON, BUNDLE, BYTES, TEXT, PICKLE, "npy", "arrow"})


class Codecs:
    """A set of codecs; most programs need only the one behind `dalsegno.values.encode`.

    Args:
        allow_pickle: Whether values may be written and read with pickle; where this is None,
            ``DALSEGNO_ALLOW_PICKLE=1`` says so.
    """

    def __init__(self, *, allow_pickle: bool | None = None) -> None:
        self.allow_pickle = allow_pickle
        self._registered: tuple[Codec, ...] = ()
        self._lock = threading.Lock()

    def register(self, codec: Codec) -> None:
        """Add a codec; the latest one that takes a value wins. The same class may be registered again.

        Raises:
            UsageError: If the name is taken by another codec.
        """
        with self._lock:
            others = tuple(known for known in self._registered if known.name != codec.name)
            for known in self._registered:
                if known.name == codec.name and type(known).__qualname__ != type(codec).__qualname__:
                    raise _name_taken(codec, f"{type(known).__module__}.{type(known).__qualname__}")
            if codec.name in _BUILTIN:
                raise _name_taken(codec, "Dal Segno")
            self._registered = (codec, *others)

    def encode(self, value: object) -> Encoded:
        """Encode a value with the codec that its type asks for.

        Raises:
            UsageError: If some part of it has no codec; the message has the path to it.
        """
        if value is None:
            return _NONE
        kind = type(value)
        if kind is bytes or (kind is str and len(value) > LONG_TEXT):  # type: ignore[arg-type]
            long = self._encode_bytes_or_text(value)
            if long is not None:
                return long
        try:
            return encode_plain(value) or self._encode_structure(value)
        except Refusal as refusal:
            raise refusal.as_usage_error() from refusal.__cause__
        except RecursionError:
            raise UsageError(NESTED_TOO_DEEPLY, reason="NO_CODEC") from None

    def decode(self, encoded: Encoded) -> Any:
        """Decode into a new object, which shares nothing with what other calls gave.

        Raises:
            UsageError: If the codec is unknown or not allowed, a class cannot be found, or the JSON is wrong.
        """
        try:
            if encoded.codec == JSON:
                tree = read_json(encoded.data)
                return TreeReader(_no_parts).value(tree) if has_tags(encoded.data) else tree
            return self._decode_data(encoded.codec, encoded.data)
        except Refusal as refusal:
            raise refusal.as_usage_error() from refusal.__cause__
        except RecursionError:
            raise UsageError(NESTED_TOO_DEEPLY, reason="INVALID_JSON") from None

    def interpret(self, tree: Any) -> Any:
        """The value that parsed JSON stands for, its tags resolved.

        Raises:
            UsageError: If a tag is wrong.
        """
        try:
            return TreeReader(_no_parts).value(tree)
        except Refusal as refusal:
            raise refusal.as_usage_error() from refusal.__cause__
        except RecursionError:
            raise UsageError(NESTED_TOO_DEEPLY, reason="INVALID_JSON") from None

    def seal(self, codec: str, data: bytes) -> Encoded:
        """Give stored or uploaded bytes their digest, without decoding them into objects.

        Raises:
            UsageError: If the bytes are not what the codec writes.
        """
        try:
            return self._seal(codec, data)
        except Refusal as refusal:
            raise refusal.as_usage_error() from refusal.__cause__
        except RecursionError:
            raise UsageError(NESTED_TOO_DEEPLY, reason="INVALID_JSON") from None

    def verify(self, encoded: Encoded) -> None:
        """Check that the bytes are those that the digest was taken of.

        Raises:
            BackendError: With reason ``CORRUPT_VALUE``.
        """
        try:
            whole = digest_of(encoded.codec, encoded.data) == encoded.digest or (
                encoded.codec in (JSON, BUNDLE) and self._seal(encoded.codec, encoded.data).digest == encoded.digest
            )
        except (Refusal, RecursionError):
            whole = False
        if not whole:
            raise BackendError(
                f"a stored value of {encoded.size:,} bytes (codec {encoded.codec!r}) does not have its "
                f"recorded digest {encoded.digest.hex()}; the store has lost or changed it",
                reason="CORRUPT_VALUE",
                fields={"codec": encoded.codec, "digest": encoded.digest.hex()},
            )

    def _encode_bytes_or_text(self, value: Any) -> Encoded | None:
        codec = _BYTES if type(value) is bytes else _TEXT
        try:
            data = codec.encode(value)
        except UnicodeEncodeError:
            return None
        return Encoded(codec.name, data, digest_of(codec.name, data), True)

    def _encode_structure(self, value: object) -> Encoded:
        writer = TreeWriter(self._encode_part, self._has_codec)
        tree = writer.node(value)
        if not writer.parts:
            return Encoded(JSON, write_json(tree), json_digest(canonical_text(tree).encode()), True)
        if type(tree) is dict and tree.get(TYPE_KEY) == PART:
            return writer.parts[0]
        return _bundle(pack(tree, writer.parts), tree, writer.parts)

    def _has_codec(self, value: object) -> bool:
        return any(codec.can_encode(value) for codec in self._registered)

    def _encode_part(self, value: object) -> Encoded:
        codec = self._codec_for(value)
        try:
            data = codec.encode(value)
        except (TypeError, ValueError) as error:
            raise Refusal(f"codec {codec.name!r} refused it: {error}", reason="NO_CODEC") from error
        return Encoded(codec.name, data, digest_of(codec.name, data), codec.canonical)

    def _codec_for(self, value: object) -> Codec:
        for codec in (*self._registered, *_library_codecs(value), _BYTES):
            if codec.can_encode(value):
                return codec
        if self._pickle_allowed():
            return _PICKLE
        raise unsupported(value)

    def _pickle_allowed(self) -> bool:
        if self.allow_pickle is not None:
            return self.allow_pickle
        return os.environ.get(ALLOW_PICKLE_SETTING) == "1"

    def _codec_named(self, name: str) -> Codec:
        for codec in (*self._registered, _BYTES, _TEXT):
            if codec.name == name:
                return codec
        if name == PICKLE:
            if self._pickle_allowed():
                return _PICKLE
            raise Refusal(
                f"it was written with pickle, and reading a pickle runs code; allow it here with "
                f"{ALLOW_PICKLE_SETTING}=1 if you trust who wrote it",
                reason="PICKLE_NOT_ALLOWED",
            )
        return _library_codec_named(name)

    def _decode_data(self, name: str, data: bytes) -> Any:
        if name == BUNDLE:
            tree, segments = unpack(data)
            part = _numbered(segments)
            return TreeReader(lambda number: self._decode_data(part(number).codec, part(number).data)).value(tree)
        codec = self._codec_named(name)
        try:
            return codec.decode(data)
        except (TypeError, ValueError, OSError) as error:
            raise Refusal(f"codec {name!r} cannot read it: {error}", reason="CORRUPT_VALUE") from error

    def _seal(self, name: str, data: bytes) -> Encoded:
        if name == JSON:
            return Encoded(JSON, data, json_digest(canonical_text(read_json(data)).encode()), True)
        if name == BUNDLE:
            tree, segments = unpack(data)
            return _bundle(data, tree, [self._seal(segment.codec, segment.data) for segment in segments])
        return Encoded(name, data, digest_of(name, data), self._is_canonical(name))

    def _is_canonical(self, name: str) -> bool:
        for codec in self._registered:
            if codec.name == name:
                return codec.canonical
        return name in (BYTES, TEXT, "npy")


_NONE = Encoded(JSON, b"null", json_digest(b"null"), True)


def _bundle(data: bytes, tree: Any, parts: list[Encoded]) -> Encoded:
    part = _numbered(parts)
    form = canonical_text(tree, lambda number: part(number).digest.hex())
    return Encoded(BUNDLE, data, digest_of(BUNDLE, form.encode()), all(part.canonical for part in parts))


def _numbered(parts: Sequence[T]) -> Callable[[object], T]:
    def part(number: object) -> T:
        if type(number) is not int or not 0 <= number < len(parts):
            raise Refusal(f"there is no part {number!r}; there are {len(parts)}", reason="CORRUPT_VALUE")
        return parts[number]

    return part


def _library_codecs(value: object) -> tuple[Codec, ...]:
    root = type(value).__module__.partition(".")[0]
    if root == "numpy":
        return (_library_codec_named("npy"),)
    return (_library_codec_named("arrow"),) if root in _TABLE_LIBRARIES else ()


def _library_codec_named(name: str) -> Codec:
    try:
        if name == "npy":
            from dalsegno.values.arrays import NPY

            return NPY
        if name == "arrow":
            from dalsegno.values.frames import ARROW

            return ARROW
    except ImportError as error:
        raise Refusal(f"codec {name!r} needs a library: {error}", reason="MISSING_LIBRARY") from error
    raise Refusal(
        f"it was written with codec {name!r}, which is not registered here; import the module that does so",
        reason="NO_CODEC",
    )


def _no_parts(number: int) -> Any:
    raise Refusal(f"part {number} is missing: only a bundle has parts", reason="INVALID_JSON")


def _name_taken(codec: Codec, owner: str) -> UsageError:
    return UsageError(
        f"a codec named {codec.name!r} exists already (of {owner}); choose another name",
        reason="CODEC_NAME_TAKEN",
        fields={"codec": codec.name},
    )
