"""ArtifactService: convert, call, convert back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_never
from uuid import UUID

from grpc import aio

from dalsegno.errors import BackendError, UsageError
from dalsegno.v1 import artifact_service_pb2 as messages
from dalsegno.v1.artifact_service_pb2_grpc import ArtifactServiceServicer
from dalsegno.v1.value_pb2 import Payload
from dalsegno.values import Encoded, verify
from dalsegno_planner.entropy import new_uuid7
from dalsegno_planner.rpc.convert import optional_uuid
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.settings import Settings
from dalsegno_planner.store import artifacts
from dalsegno_planner.store.artifacts import Artifact
from dalsegno_planner.store.objects import Objects
from dalsegno_planner.store.pool import Pool
from dalsegno_planner.times import timestamp

CHUNK_SIZE = 1024 * 1024


class ArtifactServicer(ArtifactServiceServicer):
    """Reads and stores artifacts."""

    def __init__(self, pool: Pool, objects: Objects, values: ValueReader, settings: Settings) -> None:
        self._pool = pool
        self._objects = objects
        self._values = values
        self._settings = settings

    async def Get(
        self,
        request: messages.ArtifactServiceGetRequest,
        context: aio.ServicerContext[messages.ArtifactServiceGetRequest, messages.ArtifactServiceGetResponse],
    ) -> messages.ArtifactServiceGetResponse:
        return messages.ArtifactServiceGetResponse(artifact=artifact_message(await self._find(request.id)))

    async def Upload(
        self,
        request_iterator: AsyncIterator[messages.ArtifactServiceUploadRequest],
        context: aio.ServicerContext[messages.ArtifactServiceUploadRequest, messages.ArtifactServiceUploadResponse],
    ) -> messages.ArtifactServiceUploadResponse:
        header = await _header(request_iterator)
        content = await self._content(header, request_iterator)
        payload = Payload(codec=header.codec, inline=content)
        stored = await self._values.store(payload, "the upload")
        _check_digest(header, stored, content)
        async with self._pool.acquire() as connection:
            artifact = await artifacts.insert(connection, new_uuid7(), header.name, "", stored.SerializeToString())
        message = artifact_message(artifact)
        message.payload.ClearField("content")
        return messages.ArtifactServiceUploadResponse(artifact=message)

    async def Download(
        self,
        request: messages.ArtifactServiceDownloadRequest,
        context: aio.ServicerContext[messages.ArtifactServiceDownloadRequest, messages.ArtifactServiceDownloadResponse],
    ) -> AsyncIterator[messages.ArtifactServiceDownloadResponse]:
        match request.WhichOneof("source"):
            case "id":
                payload = Payload.FromString((await self._find(request.id)).payload)
            case "object_key":
                payload = Payload(object_key=request.object_key)
            case None:
                raise UsageError("nothing was asked for; give an ID or an object key", reason="MISSING_SOURCE")
            case unreachable:
                assert_never(unreachable)
        async for chunk in self._chunks(payload):
            yield messages.ArtifactServiceDownloadResponse(chunk=chunk)

    async def GetStore(
        self,
        request: messages.ArtifactServiceGetStoreRequest,
        context: aio.ServicerContext[messages.ArtifactServiceGetStoreRequest, messages.ArtifactServiceGetStoreResponse],
    ) -> messages.ArtifactServiceGetStoreResponse:
        return messages.ArtifactServiceGetStoreResponse(
            url=self._settings.object_store,
            inline_limit=self._settings.inline_limit,
            payload_limit=self._settings.payload_limit,
        )

    async def _find(self, text: str) -> Artifact:
        wanted = optional_uuid(text, "id")
        if wanted is None:
            raise UsageError("no artifact was named; give its ID", reason="MISSING_ID")
        async with self._pool.acquire() as connection:
            return await artifacts.find(connection, wanted)

    async def _content(
        self, header: messages.UploadHeader, requests: AsyncIterator[messages.ArtifactServiceUploadRequest]
    ) -> bytes:
        limit, content = self._settings.payload_limit, bytearray()
        self._values.check_size(header.size, header.codec, "the upload")
        async for request in requests:
            if request.WhichOneof("message") != "chunk":
                raise UsageError("only the first message of Upload is a header", reason="SECOND_HEADER")
            content += request.chunk
            if len(content) > limit:
                self._values.check_size(len(content), header.codec, "the upload")
        if header.size and header.size != len(content):
            raise UsageError(
                f"the header says {header.size:,} bytes, and {len(content):,} came", reason="SIZE_MISMATCH"
            )
        return bytes(content)

    async def _chunks(self, payload: Payload) -> AsyncIterator[bytes]:
        if payload.WhichOneof("content") == "object_key":
            async for chunk in self._objects.read(payload.object_key, CHUNK_SIZE):
                yield chunk
        for start in range(0, len(payload.inline), CHUNK_SIZE):
            yield payload.inline[start : start + CHUNK_SIZE]


def artifact_message(artifact: Artifact) -> messages.Artifact:
    """Return the message for an artifact."""
    return messages.Artifact(
        id=str(artifact.id),
        name=artifact.name,
        execution_id=_text(artifact.execution_id),
        call_id=_text(artifact.call_id),
        payload=Payload.FromString(artifact.payload),
        created_at=timestamp(artifact.created_at),
    )


async def _header(requests: AsyncIterator[messages.ArtifactServiceUploadRequest]) -> messages.UploadHeader:
    async for request in requests:
        if request.WhichOneof("message") == "header":
            return request.header
        break
    raise UsageError("the first message of Upload has to be its header", reason="MISSING_HEADER")


def _check_digest(header: messages.UploadHeader, stored: Payload, content: bytes) -> None:
    if not header.digest:
        return
    try:
        verify(Encoded(header.codec, content, header.digest, header.canonical))
    except BackendError:
        raise UsageError(
            f"the content that came has the digest {stored.digest.hex()}, and the header says {header.digest.hex()}; "
            "send it again",
            reason="DIGEST_MISMATCH",
            fields={"expected": header.digest.hex(), "actual": stored.digest.hex()},
        ) from None
    stored.digest, stored.canonical = header.digest, header.canonical


def _text(value: UUID | None) -> str:
    return "" if value is None else str(value)
