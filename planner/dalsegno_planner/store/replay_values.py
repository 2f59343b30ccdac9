"""The values of a replay request: found, and checked against the types of what they replace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from dalsegno.errors import NotFoundError, StateError
from dalsegno.v1.definition_pb2 import Definition, DefinitionKind
from dalsegno.v1.value_pb2 import Payload
from dalsegno_planner.core import problems
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.store import artifacts, graph
from dalsegno_planner.store.definitions import DefinitionKey
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_request import ArtifactOrUuid, Given, TodaysCode
from dalsegno_planner.store.value_types import admits_uuid

_KINDS = {
    DefinitionKind.DEFINITION_KIND_FLOW: "flow",
    DefinitionKind.DEFINITION_KIND_PIPELINE: "pipeline",
    DefinitionKind.DEFINITION_KIND_STEP: "step",
}


@dataclass(frozen=True, slots=True)
class FoundValue:
    """A value, and the artifact that it is, where it is one."""

    payload: Payload
    artifact_id: UUID | None = None


async def find_value(
    connection: Connection, given: Given, field: str, schemas: Iterable[str] = ()
) -> FoundValue | Problem:
    """Return the value that a request gives for something of these types, or why there is none."""
    if isinstance(given, ArtifactOrUuid):
        given = given.payload if any(map(admits_uuid, schemas)) else given.artifact_id
    if isinstance(given, Problem):
        return given
    if isinstance(given, Payload):
        return FoundValue(given)
    try:
        found = await artifacts.find(connection, given)
    except NotFoundError as error:
        return problems.not_found(error.reason, field, error.message)
    except StateError as error:
        return problems.state(error.reason, field, error.message)
    return FoundValue(Payload.FromString(found.payload), given)


def fingerprint(payload: Payload) -> str:
    """What tells a value from another one in a plan's digest; the codec where the digest proves nothing."""
    return payload.digest.hex() if payload.canonical else payload.codec


class KnownCode:
    """Definitions by which values are checked: today's where the client sent its code, else those recorded.

    Args:
        source: The execution that is replayed.
        code_digest: The digest of its code.
        code: Today's code.
    """

    def __init__(self, source: Execution, code_digest: str, code: TodaysCode | None) -> None:
        self._source = source
        self._flow_key = DefinitionKey(source.project, source.kind.value, source.module, source.flow, code_digest)
        self._today = {(_KINDS.get(one.kind), one.module, one.name): one for one in code.definitions} if code else {}
        self._todays_flow = self._today.get((source.kind.value, code.module, code.name)) if code else None
        self._recorded: Mapping[DefinitionKey, Definition] = {}

    async def load(self, connection: Connection, steps: Iterable[tuple[str, str, str]]) -> None:
        """Read the definitions of the flow and of steps by module, name and code digest."""
        _, *flow = self._flow_key
        keys = {(flow[0], flow[1], flow[2], flow[3]), *(("step", *step) for step in steps)}
        self._recorded = await graph.definitions(connection, self._source.project, keys)

    @property
    def todays_flow(self) -> Definition | None:
        """The flow or pipeline as it is today."""
        return self._todays_flow

    @property
    def flow_schemas(self) -> Mapping[str, str]:
        """JSON Schemas of the execution's inputs by name."""
        found = self._todays_flow or self._recorded.get(self._flow_key)
        return found.input_schemas if found is not None else {}

    def step_schemas(self, module: str, name: str, code_digest: str) -> Mapping[str, str]:
        """JSON Schemas of a step's inputs by name; its keys are the inputs that it is known to have."""
        found = self._step(module, name, code_digest)
        return found.input_schemas if found is not None else {}

    def output_schemas(self, module: str, name: str, code_digest: str) -> Mapping[str, str]:
        """JSON Schemas of a step's outputs by name, as far as they are known."""
        found = self._step(module, name, code_digest)
        return found.output_schemas if found is not None else {}

    def _step(self, module: str, name: str, code_digest: str) -> Definition | None:
        key = DefinitionKey(self._source.project, "step", module, name, code_digest)
        return self._today.get(("step", module, name)) or self._recorded.get(key)

    def todays_digests(self) -> list[tuple[str, str, str]]:
        """Module, name and digest of the steps of today's code."""
        return [(one.module, one.name, one.digest) for (kind, _, _), one in self._today.items() if kind == "step"]


def signature_changes(definition: Definition, recorded: Collection[str], given: Collection[str]) -> list[str]:
    """How today's arguments differ from the recorded inputs, where that makes a replay impossible."""
    arguments = set(definition.input_schemas)
    removed = sorted(set(recorded) - arguments)
    added = sorted(set(definition.required_inputs) - set(recorded) - set(given))
    return [f"the argument {name!r} was recorded and exists no more" for name in removed] + [
        f"the argument {name!r} is required and was not recorded; give it a default, or a value in this replay"
        for name in added
    ]
