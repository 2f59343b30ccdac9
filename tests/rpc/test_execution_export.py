"""ExecutionService.Export: whole executions, as imports take them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from dalsegno.v1 import execution_pb2 as states
from dalsegno.v1.definition_pb2 import (
    DEFINITION_KIND_FLOW,
    DEFINITION_KIND_PIPELINE,
    DEFINITION_KIND_STEP,
    Definition,
    DefinitionRef,
)
from dalsegno.v1.execution_pb2 import Execution, Failure
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceExportRequest,
    ExecutionServiceExportResponse,
    ExecutionServiceImportRequest,
    ExecutionServiceListInvocationsRequest,
    ImportedStep,
    ImportedSteps,
    ImportHeader,
    StepSpec,
)
from dalsegno.v1.replay_service_pb2 import (
    CodeVersion,
    ReplayServiceCreateRequest,
    ReplaySpec,
    SelectorList,
)
from dalsegno.v1.value_pb2 import Binding, BindingList, Output, Outputs
from dalsegno.v1.wait_service_pb2 import WAIT_STATE_ANSWERED, WAIT_STATE_TIMED_OUT, Wait, WaitServiceListRequest
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import complete, set_state
from tests.rpc.serving import Serving, json_payload, json_value, output, pipeline_header, plain, replay_from, step, told

DIGEST = "ab" * 32


def done(spec: StepSpec, *results: object, **fields: Any) -> ImportedStep:
    names = list(spec.options.outputs) or ["output"]
    outputs = Outputs(
        outputs=[Output(name=name, payload=json_payload(result)) for name, result in zip(names, results, strict=False)]
    )
    return ImportedStep(step=spec, outputs=outputs, **fields)


def moment(second: int) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(datetime(2024, 5, 1, 12, 0, second, tzinfo=UTC))
    return message


async def record(
    planner: Serving, head: ImportHeader, *batches: Iterable[ImportedStep], returns: Binding | None = None
) -> Execution:
    requests = [ExecutionServiceImportRequest(header=head)]
    requests += [ExecutionServiceImportRequest(steps=ImportedSteps(steps=batch)) for batch in batches]
    if returns is not None:
        requests.append(ExecutionServiceImportRequest(returns=returns))
    return (await planner.executions.Import(iter(requests))).execution


async def exported(planner: Serving, execution: str) -> list[ExecutionServiceExportResponse]:
    return [one async for one in planner.executions.Export(ExecutionServiceExportRequest(execution=execution))]


async def again(planner: Serving, messages: Iterable[ExecutionServiceExportResponse]) -> Execution:
    """Import what was exported, under another name."""
    requests = [ExecutionServiceImportRequest.FromString(message.SerializeToString()) for message in messages]
    requests[0].header.name = ""
    return (await planner.executions.Import(iter(requests))).execution


def steps_of(messages: Iterable[ExecutionServiceExportResponse]) -> list[ImportedStep]:
    return [step for message in messages for step in message.steps.steps]


FLOW = ImportHeader(
    project="default",
    definition=DefinitionRef(module="kitchens", name="article"),
    kind=DEFINITION_KIND_FLOW,
    name="recorded elsewhere",
    state=states.EXECUTION_STATE_FAILED,
    inputs={"topic": json_value("stoves")},
    failure=Failure(message="no luck", invocation_id="draft", attempt=2),
    started_at=moment(0),
    finished_at=moment(9),
    code_digest=DIGEST,
    definitions=[
        Definition(
            kind=DEFINITION_KIND_FLOW,
            module="kitchens",
            name="article",
            digest=DIGEST,
            input_schemas={"topic": '{"type": "string"}'},
        ),
        Definition(kind=DEFINITION_KIND_STEP, module="training", name="research", digest=DIGEST),
    ],
)


def flow_steps() -> list[ImportedStep]:
    research = step("research", topic=Binding(flow_input="topic", digest=b"d" * 32, canonical=True))
    research.code_digest = DIGEST
    asked = Wait(
        question="Go on?",
        schema='{"type": "boolean"}',
        metadata='{"to": 1}',
        state=WAIT_STATE_ANSWERED,
        answered_by="ann",
        asked_at=moment(1),
        answered_at=moment(2),
    )
    unanswered = Wait(state=WAIT_STATE_TIMED_OUT, asked_at=moment(3), deadline=moment(4))
    return [
        done(research, "notes", started_at=moment(0), finished_at=moment(1)),
        done(step("approve"), True, kind=states.INVOCATION_KIND_WAIT, wait=asked),
        ImportedStep(
            step=step("hurry"), kind=states.INVOCATION_KIND_WAIT, state=states.INVOCATION_STATE_FAILED, wait=unanswered
        ),
        ImportedStep(
            step=step("draft", notes=output(1), after=[2]),
            state=states.INVOCATION_STATE_FAILED,
            failure=Failure(message="no luck"),
        ),
    ]


async def test_a_flow_with_its_waits_types_and_failures_survives(planner: Serving) -> None:
    first = await record(planner, FLOW, flow_steps())
    messages = await exported(planner, first.id)
    second = await again(planner, messages)
    repeated = await exported(planner, second.id)
    assert (second.name, repeated[0].header.name) == (repeated[0].header.name, second.name)
    repeated[0].header.name = messages[0].header.name
    assert repeated == messages

    header = messages[0].header
    assert (header.state, header.code_digest, header.failure) == (FLOW.state, DIGEST, FLOW.failure)
    assert (header.started_at, header.finished_at, header.name) == (FLOW.started_at, FLOW.finished_at, FLOW.name)
    assert {one.name: one for one in header.definitions} == {one.name: one for one in FLOW.definitions}
    for given, found in zip(flow_steps(), steps_of(messages), strict=True):
        assert found.step.invocation_id == given.step.invocation_id
        assert found.step.inputs.bindings.keys() == given.step.inputs.bindings.keys()
        assert (found.step.code_digest, found.failure) == (given.step.code_digest, given.failure)
        assert (found.kind or 1, found.state) == (given.kind or 1, given.state or states.INVOCATION_STATE_COMPLETED)
        assert (found.started_at, found.finished_at) == (given.started_at, given.finished_at)
        assert found.wait == given.wait
    assert list(steps_of(messages)[3].step.after) == [2]


async def test_waits_of_an_import_are_listed(planner: Serving) -> None:
    execution = await record(planner, FLOW, flow_steps())
    waits = (await planner.waits.List(WaitServiceListRequest(execution=execution.id))).waits
    assert [(one.name, one.state, one.question) for one in waits] == [
        ("approve", WAIT_STATE_ANSWERED, "Go on?"),
        ("hurry", WAIT_STATE_TIMED_OUT, ""),
    ]
    assert (waits[0].answer.inline, waits[0].answered_by, waits[0].answered_at) == (b"true", "ann", moment(2))


async def test_a_wait_that_says_nothing_of_itself_was_answered(planner: Serving) -> None:
    answered = done(step("approve"), True, kind=states.INVOCATION_KIND_WAIT, wait=Wait(answered_at=moment(5)))
    head = ImportHeader(definition=DefinitionRef(name="f"), kind=DEFINITION_KIND_FLOW)
    execution = await record(planner, head, [answered])
    (wait,) = (await planner.waits.List(WaitServiceListRequest(execution=execution.id))).waits
    assert (wait.state, wait.asked_at) == (WAIT_STATE_ANSWERED, moment(5))


PIPELINE = ImportHeader(
    definition=DefinitionRef(name="training", module="training"),
    kind=DEFINITION_KIND_PIPELINE,
    inputs={"n": json_value(2)},
    shaping_inputs=["n"],
)


async def test_a_pipeline_keeps_what_it_returns_and_what_shapes_it(planner: Serving, connection: Connection) -> None:
    returns = Binding(list=BindingList(items=[output(1), Binding(flow_input="n")]))
    first = await record(planner, PIPELINE, [done(step("load"), 7)], returns=returns)
    assert first.result.inline == b"[7,2]"
    messages = await exported(planner, first.id)
    assert messages[-1].returns == returns
    assert messages[0].header.shaping_inputs == ["n"]
    assert (await again(planner, messages)).result.inline == b"[7,2]"
    assert await connection.fetchval("SELECT count(*) FROM executions WHERE shaping_inputs = '{n}'") == 2


@pytest.mark.parametrize(
    ("steps", "returns", "field"),
    [
        ([done(step("a"), 1)], output(2), "result"),
        ([done(step("a"), 1, kind=states.INVOCATION_KIND_WAIT, wait=Wait(schema="{"))], None, "steps[1].wait.schema"),
    ],
)
async def test_what_is_wrong_is_refused(
    planner: Serving, connection: Connection, steps: list[ImportedStep], returns: Binding | None, field: str
) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, PIPELINE, steps, returns=returns)
    assert told(error.value).fields == [field]
    assert await connection.fetchval("SELECT count(*) FROM executions") == 0


async def test_the_order_of_futures_survives_and_has_each_place_once(planner: Serving, connection: Connection) -> None:
    steps = [done(step(name), 1, yielded=place) for name, place in (("a", 2), ("b", 0), ("c", 1))]
    messages = await exported(planner, (await record(planner, FLOW, steps)).id)
    second = await again(planner, messages)
    assert [one.yielded for one in steps_of(await exported(planner, second.id))] == [2, 0, 1]
    before = await connection.fetchval("SELECT count(*) FROM executions")
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, PIPELINE, [done(step(name), 1, yielded=1) for name in ("a", "b")])
    assert told(error.value).reason == "SAME_PLACE"
    assert await connection.fetchval("SELECT count(*) FROM executions") == before


async def test_nothing_comes_after_what_is_returned(planner: Serving) -> None:
    requests = [
        ExecutionServiceImportRequest(header=PIPELINE),
        ExecutionServiceImportRequest(returns=plain(1)),
        ExecutionServiceImportRequest(steps=ImportedSteps(steps=[done(step("a"), 1)])),
    ]
    with pytest.raises(aio.AioRpcError) as error:
        await planner.executions.Import(iter(requests))
    assert told(error.value).reason == "AFTER_LAST_MESSAGE"


async def test_many_steps_come_in_many_messages(planner: Serving) -> None:
    steps = [done(step(f"s_{at}", x=output(at - 1)) if at > 1 else step("s_1"), at) for at in range(1, 3_501)]
    execution = await record(planner, PIPELINE, steps)
    messages = await exported(planner, execution.id)
    assert [len(message.steps.steps) for message in messages[1:]] == [1_000, 1_000, 1_000, 500]
    assert [one.step.invocation_id for one in steps_of(messages)] == [one.step.invocation_id for one in steps]


async def test_a_replay_is_exported_whole_and_in_order(planner: Serving, connection: Connection) -> None:
    """Today's graph has a new step, numbered last, that a recorded one takes something from."""
    source = await record(planner, PIPELINE, [done(step("load"), 7), done(step("fit", x=output(1)), 8)])
    today = [step("load"), step("scale", x=output(1)), step("fit", x=output(2))]
    spec = ReplaySpec(
        execution=source.id,
        skip=SelectorList(selectors=["load"]),
        code=CodeVersion(definition=PIPELINE.definition, steps=today),
    )
    replay = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec))).execution
    with pytest.raises(aio.AioRpcError) as error:
        await exported(planner, replay.id)
    assert (error.value.code(), told(error.value).reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "EXECUTION_NOT_FINISHED",
    )

    for number, value in ((3, 70), (2, 80)):
        await complete(connection, replay.id, number, value)
    await set_state(connection, replay.id, "completed")
    messages = await exported(planner, replay.id)
    found = steps_of(messages)
    assert [one.step.invocation_id for one in found] == ["load", "scale", "fit"]
    assert [one.original_call_id for one in found] == [str(call_id(UUID(source.id), 1)), "", ""]
    assert [one.outputs.outputs[0].payload.inline for one in found] == [b"7", b"70", b"80"]
    assert found[2].step.inputs.bindings["x"].output.number == 2
    assert {one.state for one in found} == {states.INVOCATION_STATE_COMPLETED}
    copy = await again(planner, messages)
    assert copy.invocation_count == 3
    copied = steps_of(await exported(planner, copy.id))
    assert [one.original_call_id for one in copied] == [one.original_call_id for one in found]


ELSEWHERE = "01a20106-648f-7849-abe8-defc36803353"


async def test_an_imported_call_is_shown_as_reused_from_where_its_record_says(planner: Serving) -> None:
    head = ImportHeader()
    head.CopyFrom(PIPELINE)
    head.original_exec_id = ELSEWHERE
    steps = [done(step("load"), 7, original_call_id=ELSEWHERE), done(step("fit", x=output(1)), 8)]
    imported = await record(planner, head, steps)
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=imported.id))
    assert [(one.state, one.original_call_id) for one in listed.invocations] == [
        (states.INVOCATION_STATE_REUSED, ELSEWHERE),
        (states.INVOCATION_STATE_COMPLETED, ""),
    ]
    own = [str(call_id(UUID(imported.id), number)) for number in (1, 2)]
    assert [one.call_id for one in listed.invocations] == own

    # What is reused of it is reused from it: it has the outputs.
    spec = replay_from(imported.id, "fit")
    replay = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec))).execution
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=replay.id))
    assert (listed.invocations[0].call_id, listed.invocations[0].original_call_id) == (own[0], own[0])


@pytest.mark.parametrize(
    ("original", "of_replay", "state", "text"),
    [
        (ELSEWHERE, False, states.INVOCATION_STATE_COMPLETED, "only a replay reuses calls: give the header"),
        (ELSEWHERE, True, states.INVOCATION_STATE_FAILED, "only a call that has completed is reused"),
        ("load", True, states.INVOCATION_STATE_COMPLETED, "is 'load', which is not a UUID"),
    ],
)
async def test_an_original_call_is_one_that_can_be_reused(
    planner: Serving,
    connection: Connection,
    original: str,
    of_replay: bool,
    state: states.InvocationState.ValueType,
    text: str,
) -> None:
    head = ImportHeader()
    head.CopyFrom(PIPELINE)
    head.original_exec_id = ELSEWHERE if of_replay else ""
    with pytest.raises(aio.AioRpcError) as error:
        await record(planner, head, [ImportedStep(step=step("load"), state=state, original_call_id=original)])
    assert told(error.value).fields == ["steps[1].original_call_id"]
    assert text in told(error.value).descriptions
    assert await connection.fetchval("SELECT count(*) FROM executions") == 0


async def test_overridden_inputs_are_those_of_the_export(planner: Serving) -> None:
    source = await record(planner, PIPELINE, [done(step("load"), 7), done(step("fit", x=output(1)), 8)])
    spec = ReplaySpec(
        execution=source.id,
        skip=SelectorList(selectors=["load", "fit"]),
        inputs={"n": json_value(3)},
        code=CodeVersion(definition=PIPELINE.definition, steps=[step("load"), step("fit", x=output(1))]),
    )
    replay = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec))).execution
    assert replay.state == states.EXECUTION_STATE_COMPLETED
    messages = await exported(planner, replay.id)
    assert messages[0].header.inputs["n"].payload.inline == b"3"
    assert [one.outputs.outputs[0].payload.inline for one in steps_of(messages)] == [b"7", b"8"]


async def test_a_single_step_is_exported_alone_with_the_values_that_it_took(
    planner: Serving, connection: Connection
) -> None:
    pair = Binding(list=BindingList(items=[output(1), plain(5), Binding(flow_input="n")]))
    steps = [done(step("load"), 7), done(step("fit", x=output(1), y=pair), 8), done(step("test", x=output(2)), 9)]
    source = await record(planner, PIPELINE, steps, returns=output(3))
    spec = replay_from(source.id, "fit")
    alone = (await planner.replays.Create(ReplayServiceCreateRequest(spec=spec, single_step=True))).execution
    await complete(connection, alone.id, 2, 80)
    await set_state(connection, alone.id, "completed")

    messages = await exported(planner, alone.id)
    assert messages[0].header.single_step
    (fit,) = steps_of(messages)
    assert fit.step.invocation_id == "fit"
    inputs = fit.step.inputs.bindings
    assert inputs["x"].value.inline == b"7"
    assert (inputs["x"].digest, inputs["x"].canonical) == (inputs["x"].value.digest, True)
    taken, given, flow_input = inputs["y"].list.items
    assert (taken.value.inline, given.value.inline, flow_input.flow_input) == (b"7", b"5", "n")
    assert list(fit.step.after) == []

    copy = await again(planner, messages)
    assert (copy.invocation_count, copy.result.inline) == (1, b"80")
    (copied,) = steps_of(await exported(planner, copy.id))
    assert copied.step == fit.step


async def test_a_started_pipeline_cannot_be_exported(planner: Serving) -> None:
    execution = await planner.start(pipeline_header(), [step("load")])
    with pytest.raises(aio.AioRpcError) as error:
        await exported(planner, execution.id)
    assert told(error.value).metadata["state"] == "pending"
