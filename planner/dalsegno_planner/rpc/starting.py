"""Starts executions: all that one needs to run, in one transaction."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from dalsegno.errors import UsageError
from dalsegno.v1.execution_service_pb2 import ExecutionServiceStartRequest, StartHeader
from dalsegno.v1.value_pb2 import FlowInputs
from dalsegno_planner.core.execution import Execution, ExecutionKind, NewExecution
from dalsegno_planner.core.lanes import lane_of
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.rpc.convert import time_limit
from dalsegno_planner.rpc.graphs import GraphReader
from dalsegno_planner.rpc.headers import definition_rows, first_message, new_execution
from dalsegno_planner.rpc.ranks import rank_of
from dalsegno_planner.rpc.streams import AlreadyCreated, gather, insert_graph, refuse_repeated
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store import executions
from dalsegno_planner.store.definitions import DefinitionRow, Definitions
from dalsegno_planner.store.invocations import GraphRows
from dalsegno_planner.store.pool import Pool
from dalsegno_planner.store.refusal import refusal
from dalsegno_planner.store.value_types import check_type


class Starter:
    """Creates executions that are to run."""

    def __init__(self, pool: Pool, bus: Bus, values: ValueReader, definitions: Definitions) -> None:
        self._pool = pool
        self._bus = bus
        self._values = values
        self._definitions = definitions

    async def start(self, messages: AsyncIterator[ExecutionServiceStartRequest]) -> Execution:
        """Create the execution that a client stream describes, or return the one that the request created before.

        Raises:
            UsageError: With everything that is wrong with it.
        """
        header = (await first_message(messages, "Start")).header
        new, inputs = await new_execution(self._pool, header, self._values, module_required=True)
        new = replace(
            new,
            code_digest=header.code_digest,
            debug=header.debug,
            shaping_inputs=tuple(header.shaping_inputs),
            time_limit=time_limit(header.timeout) if header.HasField("timeout") else None,
        )
        _check_types(header, inputs)
        code = definition_rows(new.project, header.definitions)
        if new.kind is ExecutionKind.FLOW:
            await _expect_no_steps(messages)
            new = replace(new, rank=rank_of(header))
            async with self._pool.acquire() as connection:
                await self._definitions.record(connection, new.project, code)
                execution = await executions.start_flow(connection, new)
        else:
            graph = GraphReader(new.id, new.project, inputs.values, self._values)
            batches = _rows(messages, graph)
            first = await gather(batches)
            new = replace(new, rank=rank_of(header, steps=len(first.invocations)))
            execution = await self._store_pipeline(new, header, graph, code, first, batches)
        self._bus.new_work(lane_of(new.rank))
        return execution

    async def _store_pipeline(
        self,
        new: NewExecution,
        header: StartHeader,
        graph: GraphReader,
        code: Sequence[DefinitionRow],
        first: GraphRows,
        rest: AsyncIterator[GraphRows],
    ) -> Execution:
        try:
            async with self._pool.acquire() as connection:
                await self._definitions.record(connection, new.project, code)
                async with connection.transaction():
                    await insert_graph(connection, first, rest, new.rank)
                    if header.HasField("result"):
                        new = replace(new, result_binding=await graph.result(header.result))
                    created = await executions.start_pipeline(connection, new, graph.count)
                    refuse_repeated(new, created)
                    return created
        except AlreadyCreated as repeated:
            return repeated.execution


def _check_types(header: StartHeader, inputs: FlowInputs) -> None:
    """Refuse inputs that are not of the types that the code declares, by the rule that overrides are checked by."""
    meant = (header.kind, header.definition.module, header.definition.name)
    schemas: Mapping[str, str] = {}
    for code in header.definitions:
        if (code.kind, code.module, code.name) == meant:
            schemas = code.input_schemas
    wrong = [
        problem
        for name, payload in inputs.values.items()
        if name in schemas
        for problem in check_type(payload, schemas[name], f"inputs[{json.dumps(name)}]")
    ]
    if wrong:
        raise refusal(f"the start of {header.definition.name}", wrong)


async def _rows(messages: AsyncIterator[ExecutionServiceStartRequest], graph: GraphReader) -> AsyncIterator[GraphRows]:
    async for message in messages:
        if message.WhichOneof("message") != "steps":
            raise UsageError("only the first message of Start is a header", reason="SECOND_HEADER")
        yield await graph.steps(message.steps.steps)


async def _expect_no_steps(messages: AsyncIterator[ExecutionServiceStartRequest]) -> None:
    async for message in messages:
        raise UsageError(
            f"a flow has no steps before it runs, and its header was followed by {message.WhichOneof('message')}; "
            "end the stream after the header, or start a PIPELINE",
            reason="UNEXPECTED_STEPS",
        )
