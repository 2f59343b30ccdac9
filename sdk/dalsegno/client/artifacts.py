"""Stored values, and references to them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dalsegno.client.times import moment
from dalsegno.errors import UsageError

if TYPE_CHECKING:
    from dalsegno.client.connection import Connection
    from dalsegno.client.storage import Storage
    from dalsegno.v1 import artifact_service_pb2
    from dalsegno.v1.value_pb2 import Payload


@dataclass(frozen=True, slots=True, init=False)
class ArtifactRef:
    """Names an existing artifact where a value is expected: ``overrides={"checkpoint.train": ArtifactRef(id)}``."""

    id: UUID

    def __init__(self, id: UUID | str | Artifact) -> None:
        object.__setattr__(self, "id", _uuid(id.id if isinstance(id, Artifact) else id))


class Artifact:
    """A stored value.

    Attributes:
        id: Its UUID.
        name: The name of the output; empty for an uploaded value without a name.
        size: Bytes as stored.
        codec: The codec that wrote it.
    """

    def __init__(self, id: UUID, name: str, payload: Payload, storage: Storage) -> None:
        self.id = id
        self.name = name
        self.size = payload.size
        self.codec = payload.codec
        self._payload = payload
        self._storage = storage

    def load(self) -> Any:
        """Return the value: a new object at every call.

        Raises:
            NotFoundError: If the stored object is gone.
            UsageError: If its codec is not known here.
        """
        return self._storage.load(self._payload)

    def ref(self) -> ArtifactRef:
        """Return a reference to it."""
        return ArtifactRef(self.id)

    def __repr__(self) -> str:
        return f"<Artifact {self.name or 'uploaded'} {self.codec} {self.size:,} bytes {self.id}>"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"


@dataclass(frozen=True, slots=True)
class ArtifactOrigin:
    """Where an artifact comes from.

    Attributes:
        exec_id: The execution that made it; None for an uploaded value.
        call_id: The call that made it; None for an uploaded value.
        created_at: When it was stored.
    """

    exec_id: str | None
    call_id: str | None
    created_at: dt.datetime | None


class Artifacts:
    """``client.artifacts``."""

    def __init__(self, connection: Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage

    def get(self, id: UUID | str | ArtifactRef) -> Artifact:
        """Return an artifact by its ID, or by that of a call with one output.

        Raises:
            NotFoundError: If there is none.
            UsageError: If it is no UUID.
        """
        found = self._fetch(id)
        return Artifact(UUID(found.id), found.name, found.payload, self._storage)

    def origin(self, id: UUID | str | ArtifactRef) -> ArtifactOrigin:
        """Return what made an artifact."""
        found = self._fetch(id)
        return ArtifactOrigin(found.execution_id or None, found.call_id or None, moment(found, "created_at"))

    def upload(self, value: object, name: str = "") -> Artifact:
        """Store a value as a new artifact.

        Raises:
            UsageError: If it has no codec, or is larger than the planner allows.
        """
        from dalsegno.values import check_size, encode

        encoded = encode(value)
        check_size(encoded, self._storage.limits.payload_limit or None)
        stored = self._storage.upload(encoded, name)
        return Artifact(UUID(stored.id), stored.name, stored.payload, self._storage)

    def _fetch(self, id: UUID | str | ArtifactRef) -> artifact_service_pb2.Artifact:
        from dalsegno.v1.artifact_service_pb2 import ArtifactServiceGetRequest

        wanted = id.id if isinstance(id, ArtifactRef) else _uuid(id)
        response = self._connection.call(lambda stubs: stubs.artifacts.Get, ArtifactServiceGetRequest(id=str(wanted)))
        return response.artifact


def _uuid(id: object) -> UUID:
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f"{id!r} is not the ID of an artifact, which is a UUID", reason="INVALID_UUID") from None
