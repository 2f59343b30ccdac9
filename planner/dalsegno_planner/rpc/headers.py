"""The headers of starts and imports, checked and made into new executions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol, TypeVar
from uuid import UUID

from dalsegno.errors import Problem, UsageError
from dalsegno.v1.definition_pb2 import Definition, DefinitionKind, DefinitionRef
from dalsegno.v1.value_pb2 import FlowInputs, Value
from dalsegno_planner.core.execution import DEFAULT_PROJECT, NewExecution
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.rpc.convert import EXECUTION_KINDS, is_name, optional_uuid
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store.definitions import DefinitionKey, DefinitionRow
from dalsegno_planner.store.pool import Connection, Pool

Message = TypeVar("Message")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DEFINITION_KINDS: Mapping[DefinitionKind.ValueType, str] = {
    DefinitionKind.DEFINITION_KIND_FLOW: "flow",
    DefinitionKind.DEFINITION_KIND_PIPELINE: "pipeline",
    DefinitionKind.DEFINITION_KIND_STEP: "step",
}


class Header(Protocol):
    """What the headers of starts and imports have in common."""

    @property
    def project(self) -> str: ...
    @property
    def definition(self) -> DefinitionRef: ...
    @property
    def kind(self) -> DefinitionKind.ValueType: ...
    @property
    def inputs(self) -> Mapping[str, Value]: ...
    @property
    def name(self) -> str: ...
    @property
    def request_id(self) -> str: ...


async def first_message(messages: AsyncIterator[Message], rpc: str) -> Message:
    """Return the first message of a client stream, which has to be its header.

    Raises:
        UsageError: There is none, or it is something else.
    """
    async for message in messages:
        if message.WhichOneof("message") == "header":  # type: ignore[attr-defined]
            return message
        break
    raise UsageError(f"the first message of {rpc} has to be its header", reason="MISSING_HEADER")


async def new_execution(
    pool: Pool,
    header: Header,
    values: ValueReader,
    *,
    module_required: bool,
    code_digest: str = "",
    debug: bool = False,
) -> tuple[NewExecution, FlowInputs]:
    """Return the execution that a header describes, and its inputs.

    Raises:
        UsageError: With everything that is wrong with the header.
        NotFoundError: An artifact that it names does not exist.
    """
    problems = list(_problems(header, module_required))
    inputs = await _flow_inputs(pool, header.inputs, values, problems)
    request_id = _request_id(header.request_id, problems)
    if problems:
        raise UsageError("the header is wrong; nothing was stored", reason="INVALID_HEADER", problems=problems)
    return (
        NewExecution(
            id=new_execution_id(),
            project=header.project or DEFAULT_PROJECT,
            name=header.name,
            flow=header.definition.name,
            kind=EXECUTION_KINDS[header.kind],
            module=header.definition.module,
            pinned_digest=header.definition.pinned_digest,
            code_digest=code_digest,
            debug=debug,
            request_id=request_id,
            inputs=inputs.SerializeToString(),
        ),
        inputs,
    )


def definition_rows(project: str, definitions: Iterable[Definition]) -> list[DefinitionRow]:
    """Return definitions as they are stored.

    Raises:
        UsageError: With everything that is wrong with them.
    """
    problems: list[Problem] = []
    rows: list[DefinitionRow] = []
    for place, one in enumerate(definitions):
        kind = _DEFINITION_KINDS.get(one.kind)
        if kind is None or not is_name(one.name) or _DIGEST.fullmatch(one.digest) is None:
            problems.append(
                Problem(
                    f"definitions[{place}]", "a definition needs a kind, a name and a digest of 64 hexadecimal digits"
                )
            )
            continue
        key = DefinitionKey(project or DEFAULT_PROJECT, kind, one.module, one.name, one.digest)
        rows.append(DefinitionRow(key, one.SerializeToString()))
    if problems:
        raise UsageError("definitions are wrong; nothing was stored", reason="INVALID_DEFINITION", problems=problems)
    return rows


def _problems(header: Header, module_required: bool) -> Iterable[Problem]:
    definition = header.definition
    if not is_name(definition.name):
        yield Problem("definition.name", "the name of the flow or pipeline is missing")
    if module_required and not is_name(definition.module):
        yield Problem("definition.module", "the module that defines the flow or pipeline is missing")
    if header.kind not in EXECUTION_KINDS:
        yield Problem("kind", "expected FLOW or PIPELINE")
    if header.name and not is_name(header.name):
        yield Problem("name", "a run name has 1 to 200 characters that print")
    if header.project and (not is_name(header.project) or "/" in header.project):
        yield Problem("project", "the name of a project has 1 to 200 characters that print, and no slash")


async def _flow_inputs(
    pool: Pool, given: Mapping[str, Value], values: ValueReader, problems: list[Problem]
) -> FlowInputs:
    inputs = FlowInputs()
    if any(value.WhichOneof("kind") == "artifact_id" for value in given.values()):
        async with pool.acquire() as connection:
            await _read_inputs(connection, given, values, inputs, problems)
    else:
        await _read_inputs(None, given, values, inputs, problems)
    return inputs


async def _read_inputs(
    connection: Connection | None,
    given: Mapping[str, Value],
    values: ValueReader,
    inputs: FlowInputs,
    problems: list[Problem],
) -> None:
    for name, value in given.items():
        try:
            inputs.values[name].CopyFrom(await values.read(connection, value, f'inputs["{name}"]'))
        except UsageError as error:
            if error.reason == "PAYLOAD_TOO_LARGE":
                raise
            problems.append(Problem(f'inputs["{name}"]', str(error)))


def _request_id(text: str, problems: list[Problem]) -> UUID | None:
    try:
        return optional_uuid(text, "request_id")
    except UsageError as error:
        problems.append(Problem("request_id", str(error)))
        return None
