"""The recorded graph of an execution, read through its lineage."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record

from dalsegno.v1.definition_pb2 import Definition, StepOptions
from dalsegno.v1.value_pb2 import Inputs, Outputs
from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.graph import Node
from dalsegno_planner.core.ids import ExecutionId, InvocationId, Number, call_id, parse_id
from dalsegno_planner.core.selectors import SHOWN_CANDIDATES, Candidate, Selector, matches, matches_part
from dalsegno_planner.store.bindings import references
from dalsegno_planner.store.definitions import DefinitionKey
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.sql import load

SQL = load("graph")

_KNOWN_NAMES = 200


@dataclass(frozen=True, slots=True)
class GraphRow:
    """The effective row of an invocation. `inputs`, `outputs` and `options` are serialized messages.

    Attributes:
        succeeded: Whether it completed, here or where a reused one comes from; whatever is overridden.
    """

    number: Number
    position: int
    invocation_id: InvocationId
    name: str
    kind: InvocationKind
    state: str
    module: str
    code_digest: str
    upstream: Sequence[int]
    after: Sequence[int]
    reads_inputs: Sequence[str]
    overridden_inputs: Sequence[str]
    inputs: bytes
    outputs: bytes | None
    options: bytes
    overridden: bool
    supplier_id: ExecutionId
    succeeded: bool

    def node(self) -> Node:
        """What planning looks at."""
        after = frozenset(Number(number) for number in self.after)
        return Node(
            number=self.number,
            invocation_id=self.invocation_id,
            name=self.name,
            kind=self.kind,
            takes=frozenset(Number(number) for number in self.upstream) - after,
            after=after,
            succeeded=self.succeeded,
            overridden=self.overridden,
            reads_inputs=frozenset(self.reads_inputs),
            module=self.module,
            code_digest=self.code_digest,
        )

    def input_names(self) -> frozenset[str]:
        """The names of its recorded inputs."""
        return frozenset(Inputs.FromString(self.inputs).bindings)

    def output_names(self) -> tuple[str, ...]:
        """The names of its outputs: as declared, else as recorded."""
        declared = tuple(StepOptions.FromString(self.options).outputs)
        return declared or tuple(one.name for one in Outputs.FromString(self.outputs or b"").outputs)


@dataclass(frozen=True, slots=True)
class Consumer:
    """An invocation that takes an output of another one."""

    number: Number
    module: str
    name: str
    code_digest: str
    inputs: Inputs

    def takes_of(self, number: int) -> frozenset[str]:
        """The names of the outputs that it takes of an invocation."""
        return frozenset(output for one, output in references(self.inputs).outputs if one == number)


async def rows(connection: Connection, execution_id: UUID, numbers: Iterable[int]) -> list[GraphRow]:
    """The rows of some invocations, by number; those that are not there are left out."""
    return [_row(one) for one in await connection.fetch(SQL["rows"], execution_id, list(numbers))]


async def all_rows(connection: Connection, execution_id: UUID) -> list[GraphRow]:
    """Every row without its outputs, by number: for graphs that a client has sent as a whole."""
    return [_row(one) for one in await connection.fetch(SQL["all_rows"], execution_id)]


async def candidates(connection: Connection, execution_id: UUID, selectors: Collection[Selector]) -> list[Candidate]:
    """The invocations that selectors may mean, a few more than are shown of each name."""
    found = await _candidates(connection, execution_id, selectors, ())
    parts = [one for one in selectors if one.part_of_call_id and not any(matches(one, each) for each in found)]
    if not parts:
        return found
    return await _candidates(connection, execution_id, selectors, await _calls_with(connection, execution_id, parts))


async def _calls_with(connection: Connection, execution_id: UUID, parts: Collection[Selector]) -> list[int]:
    """The first calls whose IDs begin or end like this. All are looked at: no index knows of them."""
    found: list[int] = []
    async with connection.transaction():
        async for row in connection.cursor(SQL["suppliers"], execution_id, prefetch=1_000):
            call = call_id(row["supplier_id"], row["number"])
            if any(matches_part(one, call) for one in parts):
                found.append(row["number"])
                if len(found) > SHOWN_CANDIDATES * len(parts):
                    break
    return found


async def _candidates(
    connection: Connection, execution_id: UUID, selectors: Collection[Selector], numbers: Iterable[int]
) -> list[Candidate]:
    found = await connection.fetch(SQL["candidates"], execution_id, *wanted_candidates(selectors, numbers))
    return [
        Candidate(
            number=row["number"],
            invocation_id=row["invocation_id"],
            name=row["name"],
            kind=InvocationKind(row["kind"]),
            call_id=call_id(row["supplier_id"], row["number"]),
        )
        for row in found
    ]


def wanted_candidates(
    selectors: Collection[Selector], numbers: Iterable[int] = ()
) -> tuple[list[str], list[int], list[str], int]:
    """What to look for: invocation IDs, numbers, names, and how many of each name."""
    calls = [*numbers, *(parse_id(one.call_id).number for one in selectors if one.call_id is not None)]
    return (
        sorted({one.invocation_id for one in selectors if one.invocation_id is not None}),
        sorted({number for number in calls if 0 < number < 2**31}),
        sorted({one.name for one in selectors if one.name is not None}),
        SHOWN_CANDIDATES + 1,
    )


async def numbers_of_name(connection: Connection, execution_id: UUID, name: str) -> list[Number]:
    """Every call of a step."""
    return [row["number"] for row in await connection.fetch(SQL["numbers_of_name"], execution_id, name)]


async def step_names(connection: Connection, execution_id: UUID) -> list[str]:
    """Names of steps and waits, at most some hundreds."""
    return [row["name"] for row in await connection.fetch(SQL["step_names"], execution_id, _KNOWN_NAMES)]


async def known_names(connection: Connection, execution_id: UUID) -> frozenset[str]:
    """Names and invocation IDs to choose from after a typo, at most some hundreds of each."""
    ids = await connection.fetch(SQL["some_invocation_ids"], execution_id, _KNOWN_NAMES)
    return frozenset(await step_names(connection, execution_id)) | {row["invocation_id"] for row in ids}


async def consumers(connection: Connection, execution_id: UUID, number: int, limit: int) -> list[Consumer]:
    """Some of the invocations whose inputs take an output."""
    found = await connection.fetch(SQL["consumers"], execution_id, number, limit)
    return [
        Consumer(row["number"], row["module"], row["name"], row["code_digest"], Inputs.FromString(row["inputs"]))
        for row in found
    ]


async def invocation_ids(connection: Connection, execution_id: UUID, numbers: Iterable[int]) -> dict[Number, str]:
    """The invocation IDs of steps; waits are left out."""
    found = await connection.fetch(SQL["invocation_ids"], execution_id, list(numbers))
    return {row["number"]: row["invocation_id"] for row in found}


async def todays_steps(connection: Connection, project: str, execution_id: UUID) -> list[tuple[str, str, str]]:
    """Module, name and digest of the code of an execution's steps that executors have, else of what was recorded last.

    An execution with more names than are known at once is asked for some of them.
    """
    found = await connection.fetch(SQL["todays_steps"], project, execution_id, _KNOWN_NAMES)
    return [(row["module"], row["name"], row["digest"]) for row in found]


async def definitions(
    connection: Connection, project: str, keys: Collection[tuple[str, str, str, str]]
) -> Mapping[DefinitionKey, Definition]:
    """The recorded definitions with these kinds, modules, names and digests."""
    wanted = sorted(set(keys))
    columns = [[key[place] for key in wanted] for place in range(4)]
    found = await connection.fetch(SQL["definitions"], project, *columns)
    return {
        DefinitionKey(project, row["kind"], row["module"], row["name"], row["digest"]): Definition.FromString(
            row["document"]
        )
        for row in found
    }


def _row(row: Record) -> GraphRow:
    return GraphRow(**{**row, "kind": InvocationKind(row["kind"])})
