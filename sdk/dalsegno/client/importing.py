"""Executions recorded elsewhere: imported, and exported in the same format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from dalsegno.client.connection import new_request_id
from dalsegno.client.executions import Execution
from dalsegno.client.identity import execution_text
from dalsegno.errors import NotFoundError, Problem, UsageError
from dalsegno.object_store import ObjectStore
from dalsegno.records.files import RETURNS_KEY, as_document, is_lines, record_items, write_document, write_lines
from dalsegno.records.reading import RecordReader
from dalsegno.records.values import ValueReader
from dalsegno.records.wire import content_start
from dalsegno.records.writing import RecordWriter
from dalsegno.v1.artifact_service_pb2 import ArtifactServiceGetRequest, ArtifactServiceGetStoreRequest
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceExportRequest,
    ExecutionServiceExportResponse,
    ExecutionServiceImportRequest,
    ImportHeader,
)
from dalsegno.v1.value_pb2 import Payload

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach
    from dalsegno.values import Encoded

STEPS_IN_MESSAGE = 1_000
BYTES_IN_MESSAGE = 1024 * 1024
_steps_start = content_start(ExecutionServiceImportRequest.DESCRIPTOR, "steps")
_PLACE = re.compile(r"^steps\[(\d+)\]")


def import_record(reach: Reach, record: str | Path | Mapping[str, Any] | Iterable[Any]) -> Execution:
    """Create a finished execution from a record."""
    # Also finds out whether the planner is there: what follows cannot be repeated by itself.
    limits = reach.connection.call(lambda stubs: stubs.artifacts.GetStore, ArtifactServiceGetStoreRequest())
    values = ValueReader(_Store(reach, int(limits.inline_limit)))
    try:
        response = reach.connection.push(
            lambda stubs: stubs.serialized_import.future, _messages(reach, values, record_items(record))
        )
    except UsageError as error:
        raise _with_places_of_the_record(error) from None
    return Execution(response.execution, reach)


def export_record(reach: Reach, exec_id: object, path: str | Path | None, *, embed: bool) -> dict[str, Any] | Path:
    """Return an execution as a record, or write it to a file."""
    items = exported_items(reach, exec_id, embed=embed)
    if path is None:
        return as_document(items)
    target = Path(path)
    # In another file first, so that a record is whole or not there.
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            write_record(file, items, lines=is_lines(target))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def write_record(file: IO[str], items: Iterable[Any], *, lines: bool) -> None:
    """Write what `exported_items` yields."""
    write = write_lines if lines else write_document
    write(file, items)


def exported_items(reach: Reach, exec_id: object, *, embed: bool) -> Iterator[Any]:
    """Yield the header of an execution, its steps, and what it returns, as a record has them."""
    writer = RecordWriter(_content_of(reach) if embed else None)
    request = ExecutionServiceExportRequest(execution=execution_text(exec_id), project=reach.project)
    stream: Iterator[ExecutionServiceExportResponse] = reach.connection.read_stream(
        lambda stubs: stubs.executions.Export, request
    )
    for message in stream:
        match message.WhichOneof("message"):
            case "header":
                yield writer.header(message.header)
            case "steps":
                yield from map(writer.step, message.steps.steps)
            case "returns":
                yield {RETURNS_KEY: writer.binding(message.returns)}


@dataclass(slots=True)
class _Store:
    """Where the values of an import are that do not stay in its messages."""

    reach: Reach
    inline_limit: int
    _known: dict[UUID, Payload] = field(default_factory=dict)

    def put(self, encoded: Encoded) -> None:
        self.reach.storage.put(encoded)

    def artifact(self, id: UUID) -> Payload:
        if id not in self._known:
            request = ArtifactServiceGetRequest(id=str(id))
            response = self.reach.connection.call(lambda stubs: stubs.artifacts.Get, request)
            self._known[id] = response.artifact.payload
        return self._known[id]


def _messages(reach: Reach, values: ValueReader, items: Iterator[Any]) -> Iterator[bytes]:
    """Yield the messages of an import, serialized."""
    reader = RecordReader(values)
    header = reader.header(next(items, {}), reach.project, new_request_id())
    _give_way(reach, header)
    yield ExecutionServiceImportRequest(header=header).SerializeToString()
    returns = None
    steps: list[bytes] = []
    size = 0
    for item in items:
        if type(item) is dict and len(item) == 1 and RETURNS_KEY in item:
            returns = ExecutionServiceImportRequest(returns=reader.returns(item[RETURNS_KEY]))
            continue
        step = reader.step(item)
        steps.append(step)
        size += len(step)
        if len(steps) >= STEPS_IN_MESSAGE or size >= BYTES_IN_MESSAGE:
            reader.check()
            yield _steps_start(size) + b"".join(steps)
            steps, size = [], 0
    reader.check()
    if steps:
        yield _steps_start(size) + b"".join(steps)
    if returns is not None:
        yield returns.SerializeToString()


def _give_way(reach: Reach, header: ImportHeader) -> None:
    """Take another run name where the recorded one is taken: it was unique where it was given."""
    if not header.name:
        return
    try:
        if reach.execution(header.name).name == header.name:
            header.name = ""
    except NotFoundError:
        return


def _with_places_of_the_record(error: UsageError) -> UsageError:
    """Return an error of the planner, which counts steps from 1, with places as the record has them."""
    if error.reason == "INVALID_RECORD" or not any(_PLACE.match(one.field) for one in error.problems):
        return error
    problems = [
        Problem(_PLACE.sub(lambda found: f"steps[{int(found[1]) - 1}]", one.field), one.description)
        for one in error.problems
    ]
    return UsageError(error.message, reason=error.reason, fields=error.fields, problems=problems)


def _content_of(reach: Reach) -> Callable[[Payload], bytes]:
    objects: ObjectStore = reach.storage.objects
    return lambda payload: objects.get(payload.object_key)
