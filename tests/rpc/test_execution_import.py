"""ExecutionService.Import: recorded executions, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from dalsegno import values
from dalsegno.v1 import execution_pb2 as states
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_FLOW, DEFINITION_KIND_PIPELINE, DefinitionRef
from dalsegno.v1.execution_pb2 import Execution, Failure
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceImportRequest,
    ExecutionServiceListInvocationsRequest,
    ImportedStep,
    ImportedSteps,
    ImportHeader,
    StepSpec,
)
from dalsegno.v1.value_pb2 import Binding, BindingList, Inputs, Output, Outputs, Payload
from dalsegno_planner.store.pool import Connection
from tests.rpc.serving import Serving, json_payload, json_value, output, plain, step, told


def header(**fields: Any) -> ImportHeader:
    given: dict[str, object] = {"definition": DefinitionRef(name="rnaseq"), "kind": DEFINITION_KIND_PIPELINE}
    return ImportHeader(**{**given, **fields})


def done(spec: StepSpec, *results: object, **fields: Any) -> ImportedStep:
    names = list(spec.options.outputs) or ["output"]
    outputs = Outputs(
        outputs=[Output(name=name, payload=json_payload(result)) for name, result in zip(names, results, strict=False)]
    )
    return ImportedStep(step=spec, outputs=outputs, **fields)


async def record(planner: Serving, head: ImportHeader, *batches: Iterable[ImportedStep]) -> Execution:
    requests = [ExecutionServiceImportRequest(header=head)]
    requests += [ExecutionServiceImportRequest(steps=ImportedSteps(steps=batch)) for batch in batches]
    return (await planner.executions.Import(iter(requests))).execution


async def test_a_record_becomes_a_finished_execution(planner: Serving, connection: Connection) -> None:
    started = Timestamp()
    started.FromDatetime(datetime(2024, 5, 1, tzinfo=UTC))
    finished = Timestamp()
    finished.FromDatetime(datetime(2024, 5, 2, tzinfo=UTC))
    execution = await record(
        planner,
        header(
            inputs={"lr": json_value(0.1)},
            result=json_value([1]),
            started_at=started,
            finished_at=finished,
            name="from the lab",
        ),
        [done(step("load"), [1, 2], started_at=started, finished_at=finished)],
        [done(step("fit", xs=output(1), lr=Binding(flow_input="lr"), k=plain(3)), {"w": 1})],
    )
    assert execution.state == states.EXECUTION_STATE_COMPLETED
    assert (execution.name, execution.invocation_count) == ("from the lab", 2)
    assert (execution.started_at, execution.finished_at) == (started, finished)
    assert execution.result.inline == b"[1]"
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=execution.id))
    load, fit = listed.invocations
    assert (load.state, load.finished_at, load.attempt) == (states.INVOCATION_STATE_COMPLETED, finished, 1)
    assert fit.outputs.outputs[0].payload.digest == values.encode({"w": 1}).digest
    assert fit.inputs.bindings["xs"].output.number == 1
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
    assert await connection.fetchval("SELECT next_number FROM executions") == 3


async def test_failures_make_a_failed_execution(planner: Serving) -> None:
    steps = [
        ImportedStep(step=step("a"), state=states.INVOCATION_STATE_FAILED, failure=Failure(message="no luck")),
        ImportedStep(step=step("b", x=output(1)), state=states.INVOCATION_STATE_NOT_REACHED),
        ImportedStep(step=step("c"), state=states.INVOCATION_STATE_CANCELLED),
    ]
    execution = await record(planner, header(failure=Failure(message="no luck")), steps)
    assert execution.state == states.EXECUTION_STATE_FAILED
    assert execution.failure.message == "no luck"
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=execution.id))
    assert [one.state for one in listed.invocations] == [one.state for one in steps]
    assert listed.invocations[0].failure.message == "no luck"


async def test_a_flow_brings_its_waits(planner: Serving) -> None:
    answered = done(step("approve"), True, kind=states.INVOCATION_KIND_WAIT)
    execution = await record(planner, header(kind=DEFINITION_KIND_FLOW), [done(step("a"), 1), answered])
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=execution.id))
    assert [one.kind for one in listed.invocations] == [states.INVOCATION_KIND_STEP, states.INVOCATION_KIND_WAIT]


async def test_named_outputs_are_known_to_later_steps(planner: Serving) -> None:
    outputs = Outputs(outputs=[Output(name="l", payload=json_payload(1)), Output(name="r", payload=json_payload(2))])
    split = ImportedStep(step=step("split"), outputs=outputs)
    assert (await record(planner, header(), [split], [done(step("b", x=output(1, "r")), 2)])).invocation_count == 2


async def test_a_repeated_import_returns_the_first_execution(planner: Serving, connection: Connection) -> None:
    head = header(request_id=str(uuid4()), name="once")
    first = await record(planner, head, [done(step("a"), 1)])
    assert (await record(planner, head, [done(step("a"), 1)])).id == first.id
    assert await connection.fetchval("SELECT count(*) FROM invocations") == 1


async def test_more_steps_than_are_gathered_are_stored_whole(planner: Serving, connection: Connection) -> None:
    steps = [done(step(f"s_{at}", x=output(at - 1)) if at > 1 else step("s_1"), at) for at in range(1, 12_001)]
    batches = [steps[at : at + 1_000] for at in range(0, len(steps), 1_000)]
    execution = await record(planner, header(), *batches)
    assert execution.invocation_count == 12_000
    for table, count in (("invocations", 12_000), ("edges", 11_999)):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == count

    late = [*batches, [done(step("s_1"), 1)]]
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, header(), *late)
    assert told(error.value).fields == ["steps[12001].invocation_id"]
    assert await connection.fetchval("SELECT count(*) FROM invocations") == 12_000


@pytest.mark.parametrize(
    ("head", "steps", "reason", "field"),
    [
        (header(definition=DefinitionRef()), [], "INVALID_HEADER", "definition.name"),
        (header(state=states.EXECUTION_STATE_RUNNING), [], "UNFINISHED_IMPORT", None),
        (header(state=99), [], "UNKNOWN_STATE", None),
        (header(), [done(step("a"), 1), done(step("b", x=output(3)), 1)], "INVALID_GRAPH", "steps[2].inputs.x"),
        (header(), [done(step("a"), 1), done(step("a"), 1)], "INVALID_GRAPH", "steps[2].invocation_id"),
        (header(), [done(step("a", x=Binding(flow_input="lr")), 1)], "INVALID_GRAPH", "steps[1].inputs.x"),
        (header(), [done(step("a"), 1, state=states.INVOCATION_STATE_RUNNING)], "INVALID_GRAPH", "steps[1]"),
        (
            header(),
            [
                ImportedStep(
                    step=step("a"),
                    outputs=Outputs(outputs=[Output(name="output", payload=Payload(codec="json", inline=b"x"))]),
                )
            ],
            "INVALID_GRAPH",
            "steps[1].outputs.output",
        ),
        (
            header(),
            [done(step("a"), 1, started_at=Timestamp(seconds=10**15))],
            "INVALID_TIMESTAMP",
            None,
        ),
    ],
)
async def test_a_wrong_record_is_refused_and_nothing_is_stored(
    planner: Serving,
    connection: Connection,
    head: ImportHeader,
    steps: list[ImportedStep],
    reason: str,
    field: str | None,
) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, head, steps)
    assert (error.value.code(), told(error.value).reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    if field is not None:
        assert told(error.value).fields == [field]
    for table in ("executions", "invocations", "edges"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_what_is_wrong_is_found_among_many_that_are_alike(planner: Serving, connection: Connection) -> None:
    steps = [done(step("s_1"), 1), *(done(step(f"s_{at}", x=output(at - 1)), 1) for at in range(2, 10))]
    steps[5] = done(step("s_6", x=output(8)), 1)
    steps[6] = done(step("s_7", x=output(6, "OUTPUT")), 1)
    steps[7] = done(step("s_8", x=output(7)), 1, state=states.INVOCATION_STATE_RUNNING)
    steps[8] = done(step("s_1", x=output(8)), 1)
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, header(), steps)
    wrong = ["steps[6].inputs.x", "steps[7].inputs.x", "steps[8]", "steps[9].invocation_id"]
    assert told(error.value).fields == wrong
    assert await connection.fetchval("SELECT count(*) FROM invocations") == 0


async def test_edges_and_inputs_of_steps_that_are_alike_are_their_own(planner: Serving, connection: Connection) -> None:
    pair = [Binding(list=BindingList(items=[output(at - 1), output(1), plain(at)])) for at in range(2, 400)]
    steps = [done(step("s_1"), 1), *(done(step(f"s_{at}", x=one), at) for at, one in enumerate(pair, 2))]
    execution = await record(planner, header(), steps)
    found = await connection.fetch("SELECT number, upstream, inputs FROM invocations ORDER BY number OFFSET 1")
    assert [row["upstream"] for row in found] == [sorted({1, row["number"] - 1}) for row in found]
    assert [Inputs.FromString(row["inputs"]).bindings["x"].list.items[0].output.number for row in found] == [
        row["number"] - 1 for row in found
    ]
    edges = await connection.fetchval("SELECT count(*) FROM edges WHERE execution_id = $1::uuid", execution.id)
    assert edges == 1 + 2 * 397


async def test_large_outputs_go_to_the_object_store(planner: Serving, tmp_path: Path) -> None:
    large = "x" * 100_000
    execution = await record(planner, header(), [done(step("a"), 1), done(step("b"), large)])
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=execution.id))
    key = listed.invocations[1].outputs.outputs[0].payload.object_key
    assert json.loads((tmp_path / "objects" / key).read_text()) == large


async def test_a_taken_name_is_refused(planner: Serving) -> None:
    await record(planner, header(name="once"), [done(step("a"), 1)])
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, header(name="once"), [done(step("a"), 1)])
    assert told(error.value).reason == "NAME_TAKEN"
