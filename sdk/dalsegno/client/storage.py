"""Where a client's values go and come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dalsegno.client.connection import Connection
from dalsegno.errors import BackendError
from dalsegno.object_store import ObjectStore, UrlObjectStore, checked
from dalsegno.payloads import DEFAULT_INLINE_LIMIT, encode_named, from_payload, inline_payload, referenced_payload
from dalsegno.v1 import artifact_service_pb2
from dalsegno.v1.artifact_service_pb2 import (
    ArtifactServiceDownloadRequest,
    ArtifactServiceGetStoreRequest,
    ArtifactServiceUploadRequest,
    UploadHeader,
)
from dalsegno.values import Encoded, check_size

if TYPE_CHECKING:
    from dalsegno.v1.value_pb2 import Payload

CHUNK_BYTES = 1024 * 1024
INLINE_BYTES_IN_REQUEST = 2 * CHUNK_BYTES
"""Inline values of one request stay below this together; a server takes messages of 4 MiB by default."""

MOST_INLINE_WHEN_FULL = 1024
LARGEST_CHECKED = CHUNK_BYTES
_CHECKED_CODECS = ("json", "text")

_LOOPBACK = ("unix:", "127.", "localhost:", "[::1]:")


class Storage:
    """Reads and writes values: in the object store itself where it can be reached from here, else by the planner."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self, payload: Payload) -> Any:
        """Return the value of a payload: a new object at every call.

        Raises:
            NotFoundError: If its object is gone.
            BackendError: If it cannot be read, or is not what was stored.
        """
        return from_payload(payload, self.objects if payload.object_key else None)

    def put(self, encoded: Encoded) -> None:
        """Store the content of a payload under its key."""
        if self.is_direct:
            self.objects.put(referenced_payload(encoded).object_key, encoded.data)
        else:
            self.upload(encoded, "")

    @property
    def is_direct(self) -> bool:
        """Whether values are stored from here, and not by the planner."""
        return isinstance(self.objects, UrlObjectStore)

    def upload(self, encoded: Encoded, name: str) -> artifact_service_pb2.Artifact:
        """Store a value as a new artifact, through the planner."""

        def messages() -> Iterator[ArtifactServiceUploadRequest]:
            yield ArtifactServiceUploadRequest(
                header=UploadHeader(
                    codec=encoded.codec,
                    digest=encoded.digest,
                    size=encoded.size,
                    canonical=encoded.canonical,
                    name=name,
                )
            )
            for start in range(0, encoded.size, CHUNK_BYTES):
                yield ArtifactServiceUploadRequest(chunk=encoded.data[start : start + CHUNK_BYTES])

        # Not repeated by itself: a second try would make a second artifact.
        response = self._connection.send_stream(lambda stubs: stubs.artifacts.Upload, messages, idempotent=False)
        return response.artifact

    @cached_property
    def limits(self) -> artifact_service_pb2.ArtifactServiceGetStoreResponse:
        """Where values are stored and how large they may be."""
        return self._connection.call(lambda stubs: stubs.artifacts.GetStore, ArtifactServiceGetStoreRequest())

    @cached_property
    def objects(self) -> ObjectStore:
        """The store of large values."""
        url = self.limits.url
        same_host = self._connection.address.startswith(_LOOPBACK)
        if urlsplit(url).scheme == "file" and not same_host:
            return _PlannerObjects(self._connection)
        return UrlObjectStore(url)


class _PlannerObjects:
    """The object store as the planner gives access to it, for a client that cannot reach it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> bytes:
        request = ArtifactServiceDownloadRequest(object_key=key)
        parts: Iterable[artifact_service_pb2.ArtifactServiceDownloadResponse] = self._connection.read_stream(
            lambda stubs: stubs.artifacts.Download, request
        )
        return checked(key, b"".join(part.chunk for part in parts))

    def put(self, key: str, data: bytes) -> None:
        raise BackendError(f"{key}: a client stores values as artifacts, by Storage.put", reason="OBJECT_STORE")


class Uploads:
    """The values of one request. Large ones are stored when `send` is called: once the request is known to be right."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._waiting: list[Encoded] = []
        self._inline_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def encoded(self, value: object, what: str, *, checked: bool = False) -> Payload:
        """Encode a value and return its payload.

        Args:
            value: The value.
            what: How errors name it.
            checked: Whether the planner checks its type: what it can read goes with the request, and is stored by the
                planner when that is known to be right.

        Raises:
            UsageError: If it has no codec, or is larger than the planner allows.
        """
        encoded = encode_named(value, what)
        fits = self._inline_bytes + encoded.size <= INLINE_BYTES_IN_REQUEST
        is_large = DEFAULT_INLINE_LIMIT < encoded.size <= LARGEST_CHECKED
        if checked and is_large and fits and encoded.codec in _CHECKED_CODECS:
            check_size(encoded, self._storage.limits.payload_limit or None, what=what)
            self._inline_bytes += encoded.size
            return inline_payload(encoded)
        return self.payload(encoded, what)

    def payload(self, encoded: Encoded, what: str = "the value") -> Payload:
        """Return the payload of a value.

        Raises:
            UsageError: If it is larger than the planner allows.
        """
        if self._stays_inline(encoded.size):
            self._inline_bytes += encoded.size
            return inline_payload(encoded)
        check_size(encoded, self._storage.limits.payload_limit or None, what=what)
        self._waiting.append(encoded)
        return referenced_payload(encoded)

    def _stays_inline(self, size: int) -> bool:
        if size <= MOST_INLINE_WHEN_FULL:
            return True
        if size <= DEFAULT_INLINE_LIMIT and self._inline_bytes + size <= INLINE_BYTES_IN_REQUEST:
            return True
        # What is stored by the planner keeps to its limit: below that it makes no object that could be
        # referred to.
        return not self._storage.is_direct and size <= self._storage.limits.inline_limit

    def send(self) -> None:
        """Store what is to be stored."""
        while self._waiting:
            self._storage.put(self._waiting[-1])
            self._waiting.pop()
