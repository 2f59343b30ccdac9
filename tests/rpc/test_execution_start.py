"""ExecutionService.Start: what is created, and what is refused."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import grpc
import pytest
from grpc import aio

from dalsegno import values
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_FLOW, Definition, DefinitionRef
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_COMPLETED, EXECUTION_STATE_PENDING
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceListInvocationsRequest,
    ExecutionServiceStartRequest,
    StartHeader,
    StepSpec,
    StepSpecs,
)
from dalsegno.v1.value_pb2 import Binding, BindingList, OutputRef, Payload, Value
from dalsegno_planner.store.pool import Connection
from tests.rpc.serving import (
    Serving,
    flow_header,
    json_value,
    output,
    pipeline_header,
    plain,
    serving,
    step,
    told,
)


async def refused(planner: Serving, header: StartHeader, *batches: list[StepSpec]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await planner.start(header, *batches)
    return error.value


async def test_a_flow_is_started_with_its_body_ready(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(flow_header(inputs={"topic": json_value({"b": 1, "a": [2]})}, code_digest="c0de"))
    assert execution.state == EXECUTION_STATE_PENDING
    assert execution.flow == "content"
    assert execution.project == "default"
    assert execution.inputs.values["topic"].digest == values.encode({"a": [2], "b": 1}).digest
    assert UUID(execution.id).version == 7
    assert await planner.get(execution.id) != execution  # by now it says why nothing happens
    task = await connection.fetchrow("SELECT * FROM tasks")
    assert task is not None
    assert (task["number"], task["is_body"], task["route"]) == (0, True, "default/kitchens:content")
    lineage = await connection.fetchrow("SELECT depth, ancestor_id FROM lineage")
    assert lineage is not None
    assert (lineage["depth"], lineage["ancestor_id"]) == (0, UUID(execution.id))


async def test_a_run_gets_a_readable_name_or_the_one_that_was_asked_for(planner: Serving) -> None:
    first, second = await planner.start(flow_header()), await planner.start(flow_header(name="kitchens in May"))
    assert len(first.name.split("-")) == 3
    assert second.name == "kitchens in May"
    error = told(await refused(planner, flow_header(name="kitchens in May")))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NAME_TAKEN")
    elsewhere = await planner.start(flow_header(name="kitchens in May", project="other"))
    assert elsewhere.project == "other"


async def test_a_repeated_request_returns_the_first_execution(planner: Serving) -> None:
    request_id = str(uuid4())
    first = await planner.start(flow_header(request_id=request_id, name="once"))
    assert (await planner.start(flow_header(request_id=request_id, name="once"))).id == first.id
    assert (await planner.start(pipeline_header(request_id=request_id), [step("load")])).id == first.id


async def test_a_pipeline_is_stored_whole_and_its_first_steps_are_ready(
    planner: Serving, connection: Connection
) -> None:
    both = Binding(list=BindingList(items=[output(1, "train"), output(2)]))
    steps = [
        step("load", outputs=["train", "test"], path=Binding(flow_input="path")),
        step("scale", xs=output(1, "train"), by=plain(2)),
        step("fit", both=both, after=[2]),
        step("report"),
    ]
    header = pipeline_header(
        inputs={"path": json_value("digits.csv")},
        result=output(3),
        definitions=[Definition(kind=DEFINITION_KIND_FLOW, module="training", name="x", digest="0" * 64)],
    )
    execution = await planner.start(header, steps[:2], steps[2:])
    assert execution.invocation_count == 4
    rows = await connection.fetch("SELECT * FROM invocations ORDER BY number")
    assert [row["upstream"] for row in rows] == [[], [1], [1, 2], []]
    assert [row["blocked_by"] for row in rows] == [0, 1, 2, 0]
    assert rows[0]["reads_inputs"] == ["path"]
    assert [tuple(row) for row in await connection.fetch("SELECT upstream, downstream FROM edges ORDER BY 1, 2")] == [
        (1, 2),
        (1, 3),
        (2, 3),
    ]
    assert [row["number"] for row in await connection.fetch("SELECT number FROM tasks ORDER BY 1")] == [1, 4]
    assert await connection.fetchval("SELECT count(*) FROM definitions") == 1
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=execution.id))
    assert [one.invocation_id for one in listed.invocations] == ["load", "scale", "fit", "report"]
    by = listed.invocations[1].inputs.bindings["by"].value
    assert (by.digest, by.size) == (values.encode(2).digest, 1)


async def test_a_pipeline_without_steps_has_completed(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(result=Binding(tuple=BindingList(items=[plain(1), plain("a")]))))
    assert execution.state == EXECUTION_STATE_COMPLETED
    assert execution.HasField("finished_at")
    payload = execution.result
    assert values.decode(values.Encoded(payload.codec, payload.inline, payload.digest, payload.canonical)) == (1, "a")
    events = await connection.fetch("SELECT event, state FROM events ORDER BY event")
    assert [tuple(event) for event in events] == [(1, "pending"), (2, "completed")]


@pytest.mark.parametrize(
    ("header", "field"),
    [
        (flow_header(definition=DefinitionRef(module="kitchens")), "definition.name"),
        (flow_header(definition=DefinitionRef(name="content")), "definition.module"),
        (flow_header(kind=0), "kind"),
        (flow_header(kind=3), "kind"),
        (flow_header(name="a\nb"), "name"),
        (flow_header(project="a/b"), "project"),
        (flow_header(request_id="once"), "request_id"),
        (flow_header(inputs={"x": Value()}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(json='{"a": 1')}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(json='{"a": 1, "a": 2}')}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(artifact_id="mine")}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(payload=Payload(codec="json"))}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(payload=Payload(codec="json", inline=b"{"))}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(payload=Payload(inline=b"1"))}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(payload=Payload(codec="json", inline=b"1", digest=b"short"))}), 'inputs["x"]'),
        (flow_header(inputs={"x": Value(payload=Payload(codec="json", object_key="../etc"))}), 'inputs["x"]'),
    ],
)
async def test_a_wrong_header_is_refused(
    planner: Serving, connection: Connection, header: StartHeader, field: str
) -> None:
    error = told(await refused(planner, header))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_HEADER")
    assert error.fields == [field]
    assert await connection.fetchval("SELECT count(*) FROM executions") == 0


async def test_all_problems_of_a_header_come_at_once(planner: Serving) -> None:
    error = told(await refused(planner, StartHeader(inputs={"x": Value()})))
    assert error.fields == ["definition.name", "definition.module", "kind", 'inputs["x"]']


async def test_a_definition_needs_a_digest(planner: Serving) -> None:
    error = told(await refused(planner, flow_header(definitions=[Definition(kind=DEFINITION_KIND_FLOW, name="x")])))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DEFINITION")
    assert error.fields == ["definitions[0]"]


async def test_inputs_of_the_wrong_type_are_refused_with_their_places(planner: Serving, connection: Connection) -> None:
    schemas = {"topic": '{"type": "string"}', "rates": '{"type": "array", "items": {"type": "number"}}', "any": ""}
    code = Definition(
        kind=DEFINITION_KIND_FLOW, module="kitchens", name="content", digest="d" * 64, input_schemas=schemas
    )
    inputs = {"topic": json_value(3), "rates": json_value([1, "two"]), "any": json_value(None)}
    error = told(await refused(planner, flow_header(inputs=inputs, definitions=[code])))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_TYPE")
    assert sorted(error.fields) == ['inputs["rates"][1]', 'inputs["topic"]']
    assert await connection.fetchval("SELECT count(*) FROM executions") == 0


async def test_an_unknown_artifact_is_not_found(planner: Serving) -> None:
    wanted = str(uuid4())
    error = told(await refused(planner, flow_header(inputs={"x": Value(artifact_id=wanted)})))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND")
    assert error.metadata == {"artifact": wanted}


@pytest.mark.parametrize(
    ("steps", "field", "words"),
    [
        ([step("a", x=output(1))], "steps[1].inputs.x", "no step comes before"),
        ([step("a"), step("b", x=output(7))], "steps[2].inputs.x", "step 7"),
        ([step("a"), step("b", after=[2])], "steps[2].after", "step 2"),
        ([step("a"), step("b", x=output(1, "train"))], "steps[2].inputs.x", "it has output"),
        ([step("a", outputs=["l", "r"]), step("b", x=output(1))], "steps[2].inputs.x", "it has l, r"),
        ([step("a"), step("a")], "steps[2].invocation_id", "'a' is the invocation ID of step 1"),
        ([step("")], "steps[1].invocation_id", "1 to 200 characters"),
        ([step("a", x=Binding(flow_input="lr"))], "steps[1].inputs.x", "no input 'lr'"),
        ([step("a", x=Binding())], "steps[1].inputs.x", "says nothing"),
        ([step("a", x=Binding(value=Payload(codec="json", inline=b"nope")))], "steps[1].inputs.x", "not JSON"),
        (
            [step("a"), step("b", x=Binding(list=BindingList(items=[plain(1), output(9)])))],
            "steps[2].inputs.x[1]",
            "step 9",
        ),
        (
            [
                step("a"),
                step("b", x=Binding(output=OutputRef(number=1, output="output", alternatives=[OutputRef(number=5)]))),
            ],
            "steps[2].inputs.x",
            "step 5",
        ),
    ],
)
async def test_a_wrong_graph_is_refused(
    planner: Serving, connection: Connection, steps: list[StepSpec], field: str, words: str
) -> None:
    error = told(await refused(planner, pipeline_header(), steps))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_GRAPH")
    assert field in error.fields
    assert words in error.descriptions
    for table in ("executions", "invocations", "edges", "tasks", "lineage", "events"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_an_invocation_id_is_found_to_be_taken_in_a_later_message_too(planner: Serving) -> None:
    error = told(await refused(planner, pipeline_header(), [step("a, (b)"), step("c")], [step("d"), step("a, (b)")]))
    assert error.fields == ["steps[4].invocation_id"]


async def test_a_wrong_result_is_refused(planner: Serving) -> None:
    error = told(await refused(planner, pipeline_header(result=output(2)), [step("a")]))
    assert error.fields == ["result"]


async def test_the_order_of_messages_is_checked(planner: Serving) -> None:
    header = ExecutionServiceStartRequest(header=pipeline_header())
    steps = ExecutionServiceStartRequest(steps=StepSpecs(steps=[step("a")]))
    for requests, reason in (
        ([], "MISSING_HEADER"),
        ([steps], "MISSING_HEADER"),
        ([header, header], "SECOND_HEADER"),
        ([ExecutionServiceStartRequest(header=flow_header()), steps], "UNEXPECTED_STEPS"),
    ):
        with pytest.raises(aio.AioRpcError) as error:
            await planner.executions.Start(iter(requests))
        assert told(error.value).reason == reason


async def test_values_above_the_limits(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, inline_limit=100, payload_limit=1_000) as planner:
        large, larger = "x" * 500, "x" * 2_000
        execution = await planner.start(flow_header(inputs={"x": json_value(large)}))
        stored = execution.inputs.values["x"]
        assert stored.WhichOneof("content") == "object_key"
        assert (tmp_path / "objects" / stored.object_key).read_text() == f'"{large}"'
        graph = await planner.start(pipeline_header(), [step("a", x=plain(large))])
        listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=graph.id))
        assert listed.invocations[0].inputs.bindings["x"].value.object_key == stored.object_key
        error = told(await refused(planner, flow_header(inputs={"x": json_value(larger)})))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE")
        assert error.metadata["limit"] == "1000"
        error = told(await refused(planner, pipeline_header(), [step("a", x=plain(larger))]))
        assert "more than the limit" in error.descriptions
