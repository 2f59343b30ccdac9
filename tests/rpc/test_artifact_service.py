"""ArtifactService: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from dalsegno import values
from dalsegno.v1.artifact_service_pb2 import (
    Artifact,
    ArtifactServiceDownloadRequest,
    ArtifactServiceGetRequest,
    ArtifactServiceGetStoreRequest,
    ArtifactServiceUploadRequest,
    UploadHeader,
)
from dalsegno.v1.value_pb2 import Value
from dalsegno_planner.core.ids import artifact_id, call_id
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import complete
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step, told


async def upload(planner: Serving, header: UploadHeader, *chunks: bytes) -> Artifact:
    requests = [ArtifactServiceUploadRequest(header=header)]
    requests += [ArtifactServiceUploadRequest(chunk=chunk) for chunk in chunks]
    return (await planner.artifacts.Upload(iter(requests))).artifact


async def get(planner: Serving, wanted: object) -> Artifact:
    return (await planner.artifacts.Get(ArtifactServiceGetRequest(id=str(wanted)))).artifact


async def download(planner: Serving, request: ArtifactServiceDownloadRequest) -> list[bytes]:
    return [response.chunk async for response in planner.artifacts.Download(request)]


async def test_a_small_value_comes_back_inline(planner: Serving) -> None:
    stored = await upload(planner, UploadHeader(codec="json", name="notes"), b'{"b": 1,', b' "a": 2}')
    assert stored.payload.WhichOneof("content") is None
    assert stored.payload.digest == values.encode({"a": 2, "b": 1}).digest
    assert stored.payload.canonical
    artifact = await get(planner, stored.id)
    assert (artifact.name, artifact.payload.inline) == ("notes", b'{"b": 1, "a": 2}')
    assert (UUID(artifact.id).version, artifact.call_id) == (7, "")
    assert await download(planner, ArtifactServiceDownloadRequest(id=stored.id)) == [b'{"b": 1, "a": 2}']
    started = await planner.start(flow_header(inputs={"notes": Value(artifact_id=stored.id)}))
    assert started.inputs.values["notes"] == artifact.payload


async def test_a_large_value_goes_to_the_object_store(planner: Serving, tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    half = len(content) // 2
    digest = values.encode(content).digest
    header = UploadHeader(codec="bytes", digest=digest, size=len(content), canonical=True)
    stored = await upload(planner, header, content[:half], content[half:])
    key = (await get(planner, stored.id)).payload.object_key
    assert (tmp_path / "objects" / key).read_bytes() == content
    for request in (
        ArtifactServiceDownloadRequest(id=stored.id),
        ArtifactServiceDownloadRequest(object_key=key),
    ):
        chunks = await download(planner, request)
        assert b"".join(chunks) == content
        assert max(map(len, chunks)) <= 1024 * 1024
    again = await upload(planner, header, content)
    assert (await get(planner, again.id)).payload.object_key == key


async def test_outputs_are_artifacts(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(), [step("split", outputs=["l", "r"]), step("b"), step("c")])
    await complete(connection, execution.id, 1, "left", "right", names=("l", "r"))
    await complete(connection, execution.id, 2, 2)
    of = UUID(execution.id)
    right = await get(planner, artifact_id(of, 1, 1))
    assert (right.name, right.payload.inline, right.execution_id) == ("r", b'"right"', execution.id)
    assert right.call_id == str(call_id(of, 1))
    assert (await get(planner, call_id(of, 2))).id == str(artifact_id(of, 2, 0))
    for wanted, code, reason in (
        (call_id(of, 1), grpc.StatusCode.FAILED_PRECONDITION, "AMBIGUOUS_ARTIFACT"),
        (artifact_id(of, 1, 2), grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
        (call_id(of, 3), grpc.StatusCode.FAILED_PRECONDITION, "NO_OUTPUT"),
        (call_id(of, 4), grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
        (of, grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
    ):
        with pytest.raises(aio.AioRpcError) as error:
            await get(planner, wanted)
        assert (error.value.code(), told(error.value).reason) == (code, reason)


@pytest.mark.parametrize(
    ("header", "chunks", "reason"),
    [
        (UploadHeader(codec="json"), [b"nope"], "INVALID_JSON"),
        (UploadHeader(), [b"1"], "MISSING_CODEC"),
        (UploadHeader(codec="json", size=3), [b"1"], "SIZE_MISMATCH"),
        (UploadHeader(codec="bytes", digest=b"\0" * 32), [b"1"], "DIGEST_MISMATCH"),
        (UploadHeader(codec="bytes", size=2**40), [], "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_a_wrong_upload_is_refused(
    planner: Serving, header: UploadHeader, chunks: Iterable[bytes], reason: str
) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await upload(planner, header, *chunks)
    assert (error.value.code(), told(error.value).reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_an_upload_over_the_limit_is_refused_while_it_comes(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, payload_limit=1_000) as planner:
        with pytest.raises(aio.AioRpcError) as error:
            await upload(planner, UploadHeader(codec="bytes"), *[b"x" * 300] * 5)
        assert told(error.value).reason == "PAYLOAD_TOO_LARGE"
        assert told(error.value).metadata["setting"] == "DALSEGNO_PAYLOAD_LIMIT"


@pytest.mark.parametrize(
    ("wanted", "code", "reason"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT, "MISSING_ID"),
        ("mine", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_UUID"),
        (str(uuid4()), grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
    ],
)
async def test_what_is_no_artifact(planner: Serving, wanted: str, code: grpc.StatusCode, reason: str) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await get(planner, wanted)
    assert (error.value.code(), told(error.value).reason) == (code, reason)
    if code is grpc.StatusCode.NOT_FOUND:
        assert told(error.value).details[error_details_pb2.ResourceInfo].resource_name == wanted


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (ArtifactServiceDownloadRequest(), grpc.StatusCode.INVALID_ARGUMENT, "MISSING_SOURCE"),
        (
            ArtifactServiceDownloadRequest(object_key="../settings"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_OBJECT_KEY",
        ),
        (
            ArtifactServiceDownloadRequest(object_key=f"blobs/00/{'0' * 62}"),
            grpc.StatusCode.NOT_FOUND,
            "OBJECT_NOT_FOUND",
        ),
    ],
)
async def test_what_cannot_be_downloaded(
    planner: Serving, request_: ArtifactServiceDownloadRequest, code: grpc.StatusCode, reason: str
) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await download(planner, request_)
    assert (error.value.code(), told(error.value).reason) == (code, reason)


async def test_the_store_is_told(planner: Serving) -> None:
    store = await planner.artifacts.GetStore(ArtifactServiceGetStoreRequest())
    assert (store.url, store.inline_limit, store.payload_limit) == (
        planner.settings.object_store,
        65_536,
        268_435_456,
    )
