"""ReplayService as a client in any language meets it: messages, codes, reasons, details."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from dalsegno.v1 import replay_service_pb2 as messages
from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_COMPLETED, Execution
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceListInvocationsRequest,
    ExecutionServiceWatchRequest,
    StepSpec,
    StepSpecs,
)
from dalsegno.v1.replay_service_pb2 import ReplaySpec, SelectorList
from dalsegno.v1.value_pb2 import Binding, Outputs, Payload, Value
from dalsegno_planner.core.ids import artifact_id
from dalsegno_planner.store.objects import Objects
from tests.rpc.recording import complete, set_state
from tests.rpc.serving import Serving, json_value, output, pipeline_header, plain, replay_from, step, told

Database = asyncpg.Connection

STEPS = [
    step("load", path=Binding(flow_input="path")),
    step("fit", rows=output(1), lr=Binding(flow_input="lr")),
    step("test", model=output(2)),
]


async def finished(planner: Serving, connection: Database) -> Execution:
    """A pipeline that has run."""
    header = pipeline_header(inputs={"path": json_value("data"), "lr": json_value(0.1)})
    started = await planner.start(header, STEPS)
    for number in (1, 2, 3):
        await complete(connection, started.id, number, number)
    await set_state(connection, started.id, "completed")
    return started


def spec(source: Execution, **more: Any) -> ReplaySpec:
    return ReplaySpec(execution=source.id, **more)


def from_(source: Execution, *selectors: str, **more: Any) -> ReplaySpec:
    return replay_from(source.id, *selectors, **more)


async def refused(call: aio.UnaryUnaryCall[Any, Any]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await call
    return error.value


async def test_a_plan_says_what_re_executes_and_why(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    plan = await planner.replays.Plan(messages.ReplayServicePlanRequest(spec=from_(source, "fit")))
    assert (plan.root_count, plan.affected_count, plan.reused_count) == (1, 2, 1)
    assert plan.source_execution_id == source.id
    assert [entry.invocation_id for entry in plan.entries] == ["fit", "test"]
    (root,) = plan.roots
    (reason,) = root.reasons
    assert (reason.reason, reason.cause) == (messages.ROOT_REASON_FROM, "fit")
    assert plan.next_page_token == ""


async def test_entries_of_a_plan_are_paged(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    request = messages.ReplayServicePlanRequest(spec=spec(source), page_size=2)
    first = await planner.replays.Plan(request)
    request.page_token = first.next_page_token
    second = await planner.replays.Plan(request)
    assert [one.invocation_id for one in (*first.entries, *second.entries)] == ["load", "fit", "test"]
    assert second.next_page_token == ""
    request = messages.ReplayServicePlanRequest(spec=from_(source, "test"), view=messages.PLAN_VIEW_REUSED)
    reused = await planner.replays.Plan(request)
    assert [one.invocation_id for one in reused.entries] == ["load", "fit"]
    assert all(one.call_id for one in reused.entries)


async def test_a_replay_is_an_execution_that_reuses_its_source(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    wanted = from_(source, "fit", inputs={"lr": json_value(0.5)}, overrides={"checkpoint.load": json_value([1, 2])})
    agreed = (await planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted))).digest
    created = await planner.replays.Create(
        messages.ReplayServiceCreateRequest(spec=wanted, expect_plan=agreed, name="again", requested_by="ada")
    )
    assert created.plan_digest == agreed
    assert (created.execution.original_exec_id, created.execution.name) == (source.id, "again")
    assert list(created.execution.overridden_inputs) == ["lr"]
    inputs = {name: json.loads(value.inline) for name, value in created.execution.inputs.values.items()}
    assert inputs == {"path": "data", "lr": 0.5}
    listed = await planner.executions.ListInvocations(
        ExecutionServiceListInvocationsRequest(execution=created.execution.id)
    )
    load, fit, test = listed.invocations
    assert load.output_overridden
    assert json.loads(load.outputs.outputs[0].payload.inline) == [1, 2]
    assert [one.original_call_id != "" for one in (load, fit, test)] == [True, False, False]


async def test_a_finished_replay_of_nothing_can_be_watched_to_its_end(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    created = await planner.replays.Create(messages.ReplayServiceCreateRequest(spec=spec(source, skip_successful=True)))
    events = [
        one async for one in planner.executions.Watch(ExecutionServiceWatchRequest(execution=created.execution.id))
    ]
    assert events[-1].execution.state == EXECUTION_STATE_COMPLETED


async def test_every_problem_comes_with_its_field(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    wanted = from_(
        source,
        "fitt",
        inputs={"lrr": json_value(1)},
        overrides={"load": json_value(1)},
        step_input_overrides={"fit": messages.InputOverrides(inputs={"rowz": json_value(1)})},
    )
    for call in (
        planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted)),
        planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted)),
    ):
        error = told(await refused(call))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert sorted(error.fields) == [
            "from",
            'inputs["lrr"]',
            'overrides["load"]',
            'step_input_overrides["fit"]["rowz"]',
        ]
        assert "did you mean 'rows'?" in error.descriptions
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


async def test_an_ambiguous_selector_and_a_running_source_are_failed_preconditions(
    planner: Serving, connection: Database
) -> None:
    source = await planner.start(pipeline_header(), [step("work"), step("work_2")])
    error = told(await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=from_(source, "work")))))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOURCE_RUNNING")
    await set_state(connection, source.id, "failed")
    error = told(await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=from_(source, "work")))))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AMBIGUOUS_SELECTOR")
    violations = error.details[error_details_pb2.PreconditionFailure]
    assert "invocation:work_2" in str(violations)


async def test_a_missing_artifact_is_not_found(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    wanted = spec(source, overrides={"checkpoint.load": Value(artifact_id=str(uuid4()))})
    error = told(await refused(planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted))))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND")


async def test_json_can_name_an_artifact_or_say_that_it_is_plain(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=source.id))
    call = listed.invocations[2].call_id
    for written, expected in (({"$artifact": call}, 3), ({"$value": {"$artifact": "x"}}, {"$artifact": "x"})):
        wanted = spec(source, overrides={"checkpoint.load": json_value(written)})
        made = await planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted))
        rows = await planner.executions.ListInvocations(
            ExecutionServiceListInvocationsRequest(execution=made.execution.id)
        )
        assert json.loads(rows.invocations[0].outputs.outputs[0].payload.inline) == expected


async def test_a_plan_that_is_no_longer_the_one_agreed_to_is_refused(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    request = messages.ReplayServiceCreateRequest(spec=from_(source, "fit"), expect_plan="0" * 64)
    error = told(await refused(planner.replays.Create(request)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_CHANGED")
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


async def test_a_request_is_idempotent_by_its_id(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    request = messages.ReplayServiceCreateRequest(spec=from_(source, "fit"), request_id=str(uuid4()))
    first = await planner.replays.Create(request)
    again = await planner.replays.Create(request)
    assert again.execution.id == first.execution.id
    request.spec.CopyFrom(from_(source, "test"))
    error = told(await refused(planner.replays.Create(request)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


@pytest.mark.parametrize("mode", ["everything", "skip_successful"])
async def test_a_mode_that_is_there_and_false_is_refused(planner: Serving, connection: Database, mode: str) -> None:
    source = await finished(planner, connection)
    request = messages.ReplayServicePlanRequest(spec=spec(source, **{mode: False}))
    assert told(await refused(planner.replays.Plan(request))).fields == [mode]


async def test_values_and_ids_that_are_none_are_refused(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    wanted = spec(
        source, inputs={"lr": Value(json="{"), "path": Value(artifact_id="x")}, overrides={"checkpoint.load": Value()}
    )
    error = told(await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted))))
    assert sorted(error.fields) == ['inputs["lr"]', 'inputs["path"]', 'overrides["checkpoint.load"]']
    request = messages.ReplayServiceCreateRequest(spec=spec(source), request_id="x")
    assert told(await refused(planner.replays.Create(request))).code is grpc.StatusCode.INVALID_ARGUMENT


def todays(*steps: StepSpec, **more: Any) -> messages.CodeVersion:
    definition = DefinitionRef(module="training", name="training")
    return messages.CodeVersion(definition=definition, steps=StepSpecs(steps=steps).steps, **more)


async def test_today_s_graph_replaces_the_recorded_one(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    code = todays(*STEPS, step("plot", model=output(2), style=plain("dark")), result=output(4))
    wanted = spec(source, skip=SelectorList(selectors=["load"]), code=code)
    created = await planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted))
    listed = await planner.executions.ListInvocations(
        ExecutionServiceListInvocationsRequest(execution=created.execution.id)
    )
    assert [one.invocation_id for one in listed.invocations] == ["load", "fit", "test", "plot"]
    shape = await connection.fetchval("SELECT result_binding FROM executions WHERE id = $1", UUID(created.execution.id))
    assert Binding.FromString(shape).output.number == 4


@pytest.mark.semantics("5", "else DivergenceError(graph_changed), all differences listed")
async def test_a_changed_graph_is_a_divergence_with_every_difference(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    code = todays(step("load", path=Binding(flow_input="path")), step("fit"))
    wanted = spec(source, skip=SelectorList(selectors=["load", "fit", "test"]), code=code)
    error = told(await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted))))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "GRAPH_CHANGED")
    assert error.metadata["kind"] == "graph_changed"
    violations = error.details[error_details_pb2.PreconditionFailure]
    assert len(violations.violations) == 2


@pytest.mark.semantics("5", "overriding such a parameter on the server is UsageError that says to replay from code")
async def test_a_parameter_that_shapes_the_graph_is_overridden_only_from_code(
    planner: Serving, connection: Database
) -> None:
    header = pipeline_header(inputs={"path": json_value("data"), "lr": json_value(0.1)})
    header.shaping_inputs.append("lr")
    source = await planner.start(header, STEPS)
    await set_state(connection, source.id, "failed")
    wanted = spec(source, inputs={"lr": json_value(1)})
    error = told(await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted))))
    assert error.fields == ['inputs["lr"]']
    assert "replay from code" in error.descriptions
    wanted.code.CopyFrom(todays(*STEPS, shaping_inputs=["lr"]))
    made = await planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted))
    shaping = await connection.fetchval("SELECT shaping_inputs FROM executions WHERE id = $1", UUID(made.execution.id))
    assert shaping == ["lr"]


LARGE = "x" * 200_000


def objects_of(planner: Serving) -> dict[str, Path]:
    """The files in the object store, by key."""
    folder = Path(urlsplit(planner.settings.object_store).path)
    return {str(path.relative_to(folder)): path for path in folder.rglob("blobs/*/*")}


async def with_large_values(planner: Serving, connection: Database) -> Execution:
    """A pipeline: a large input, two large outputs of which one is taken, and a large value in a step's inputs."""
    steps = [
        step("load", path=Binding(flow_input="path")),
        step("split", outputs=("train", "test"), rows=output(1)),
        step("fit", model=output(2, "train"), style=plain(LARGE + "style")),
        step("test", model=output(3)),
    ]
    header = pipeline_header(inputs={"path": json_value(LARGE + "path"), "lr": json_value(0.1)})
    started = await planner.start(header, steps)
    for number, names in enumerate([("output",), ("train", "test"), ("output",), ("output",)], start=1):
        await complete(connection, started.id, number, *(number for _ in names), names=names)
    stored = Outputs()
    for name in ("train", "test"):
        key = await Objects(planner.settings.object_store).put(json.dumps(LARGE + name).encode())
        payload = Payload(codec="json", digest=b"d" * 32, size=len(LARGE) + len(name) + 2, object_key=key)
        stored.outputs.add(name=name, payload=payload)
    await connection.execute(
        "UPDATE invocations SET outputs = $2 WHERE execution_id = $1 AND number = 2",
        UUID(started.id),
        stored.SerializeToString(),
    )
    await set_state(connection, started.id, "completed")
    return started


@pytest.mark.semantics("3", "An artifact that an affected step needs and that is gone is an error.")
async def test_an_object_that_is_gone_is_an_error_where_something_affected_needs_it(
    planner: Serving, connection: Database
) -> None:
    source = await with_large_values(planner, connection)
    objects = objects_of(planner)
    assert len(objects) == 4
    kept = {key: path.read_bytes() for key, path in objects.items()}

    async def told_of(wanted: ReplaySpec) -> str:
        calls: list[Any] = [
            planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted)),
            planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted)),
        ]
        texts = [told(await refused(call)).details[error_details_pb2.PreconditionFailure] for call in calls]
        assert texts[0] == texts[1]
        return "\n".join(one.description for one in texts[0].violations)

    async def affected(wanted: ReplaySpec) -> int:
        return (await planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted))).affected_count

    def remove(content: str) -> None:
        for path in objects.values():
            if path.exists() and path.read_bytes().rstrip(b'"').endswith(content.encode()):
                path.unlink()

    assert await affected(from_(source, "fit")) == 2
    remove("test")
    assert await affected(from_(source, "fit")) == 2, "nothing takes it"
    remove("train")
    assert "fit takes the output of split, which is reused and gone from the object store" in await told_of(
        from_(source, "fit")
    )
    assert await affected(from_(source, "split")) == 3, "it is computed again"
    assert await affected(from_(source, "test")) == 1, "nothing affected needs it"
    instead = messages.InputOverrides(inputs={"model": json_value(1)})
    assert await affected(from_(source, "fit", step_input_overrides={"fit": instead})) == 2, "nothing takes it any more"
    remove("style")
    assert "the input 'style' of fit was recorded and is gone" in await told_of(from_(source, "split"))
    instead = messages.InputOverrides(inputs={"style": json_value("plain")})
    assert await affected(from_(source, "split", step_input_overrides={"fit": instead})) == 3
    for key, content in kept.items():
        if content.endswith(b'xstyle"'):
            objects[key].write_bytes(content)
    remove("path")
    assert await affected(from_(source, "split")) == 3
    assert "the input 'path' was recorded and is gone" in await told_of(from_(source, "load"))
    assert await affected(from_(source, "load", inputs={"path": json_value("other")})) == 4
    listed = await planner.executions.ListInvocations(ExecutionServiceListInvocationsRequest(execution=source.id))
    gone = str(artifact_id(UUID(source.id), 2, 0))
    assert listed.invocations[1].invocation_id == "split"
    wanted = spec(
        source, step_input_overrides={"test": messages.InputOverrides(inputs={"model": Value(artifact_id=gone)})}
    )
    error = told(await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=wanted))))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


@pytest.mark.semantics("3", "All problems of a request come in one error.", "A refused replay leaves no trace.")
async def test_problems_of_form_of_names_and_of_values_come_together(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    wanted = spec(
        source,
        skip=SelectorList(selectors=["load", "fit", " ", "tset"]),
        on_stale=99,
        inputs={"lr": Value(json="{"), "lrr": json_value(1)},
        overrides={
            "checkpoint.load": Value(artifact_id="x"),
            "checkpoint.": json_value(1),
            "wait.x": json_value(1),
            "foo": json_value(1),
            "checkpoint.test": json_value(1),
        },
        step_input_overrides={
            "fit": messages.InputOverrides(inputs={"rowz": json_value(1), "lr": Value(artifact_id=str(uuid4()))}),
            "name:fit": messages.InputOverrides(inputs={"lr": json_value(1)}),
        },
    )
    error = told(await refused(planner.replays.Create(messages.ReplayServiceCreateRequest(spec=wanted))))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(error.fields) == sorted([
        "on_stale", "skip", "skip", "skip", 'inputs["lr"]', 'inputs["lrr"]',
        'overrides["checkpoint.load"]', 'overrides["checkpoint."]', 'overrides["wait.x"]', 'overrides["foo"]',
        'overrides["checkpoint.test"]', 'step_input_overrides["fit"]["rowz"]', 'step_input_overrides["fit"]["lr"]',
        'step_input_overrides["name:fit"]',
    ])  # fmt: skip
    for part in (
        "no artifact has the ID",
        "no invocation takes the output of test",
        "fit cannot be skipped: it must re-execute, because it takes an output that 'checkpoint.load' overrides",
        "and one of its inputs is overridden",
        "did you mean 'test'?",
        "names nothing",
    ):
        assert part in error.descriptions
    tables = [
        row["tablename"]
        for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    before = {"executions": 1, "artifacts": 0, "lineage": 1}
    assert before.items() <= {one: await connection.fetchval(f"SELECT count(*) FROM {one}") for one in tables}.items()
    assert not objects_of(planner)


async def test_a_shortened_call_id_selects_also_through_replays(planner: Serving, connection: Database) -> None:
    source = await finished(planner, connection)
    made = await planner.replays.Create(messages.ReplayServiceCreateRequest(spec=from_(source, "test")))
    await complete(connection, made.execution.id, 3, 3)
    await set_state(connection, made.execution.id, "completed")
    for execution in (source, made.execution):
        listed = await planner.executions.ListInvocations(
            ExecutionServiceListInvocationsRequest(execution=execution.id)
        )
        for one in listed.invocations:
            shortened = (one.original_call_id or one.call_id)[-10:]
            for selector in (shortened, f"call:{shortened}"):
                plan = await planner.replays.Plan(messages.ReplayServicePlanRequest(spec=from_(execution, selector)))
                assert [root.invocation_id for root in plan.roots] == [one.invocation_id]
    error = told(
        await refused(planner.replays.Plan(messages.ReplayServicePlanRequest(spec=from_(source, "call:ffff"))))
    )
    assert error.reason == "NO_MATCH"
