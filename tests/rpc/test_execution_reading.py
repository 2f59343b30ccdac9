"""ExecutionService.Get, List, ListInvocations, ListAttempts."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from dalsegno.v1 import execution_pb2 as states
from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.execution_pb2 import Execution, Failure, Invocation
from dalsegno.v1.execution_service_pb2 import (
    ExecutionServiceGetRequest,
    ExecutionServiceListAttemptsRequest,
    ExecutionServiceListInvocationsRequest,
    ExecutionServiceListRequest,
)
from dalsegno_planner.core.ids import artifact_id, call_id
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.store.pool import Connection
from tests.rpc.recording import complete, replay, set_state
from tests.rpc.serving import Serving, flow_header, json_value, output, pipeline_header, step, told


async def refused_get(planner: Serving, text: str, project: str = "") -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await planner.executions.Get(ExecutionServiceGetRequest(execution=text, project=project))
    return error.value


async def test_an_execution_is_found_by_id_name_and_parts_of_the_id(planner: Serving) -> None:
    execution = await planner.start(flow_header(name="spring menu", project="kitchens"))
    digits = execution.id.replace("-", "")
    parts = (execution.id[:23], digits[:12], digits[-6:])
    for text in (execution.id, execution.id.upper(), digits, f" {execution.id} ", *parts):
        assert (await planner.get(text)).id == execution.id
    request = ExecutionServiceGetRequest(execution="spring menu", project="kitchens")
    assert (await planner.executions.Get(request)).execution.id == execution.id


async def test_what_is_not_there_is_not_found_and_something_close_is_named(planner: Serving) -> None:
    execution = await planner.start(flow_header(name="spring-menu"))
    error = told(await refused_get(planner, "spring-manu"))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
    assert "did you mean spring-menu?" in error.message
    assert "did you mean spring-menu?" in told(await refused_get(planner, "spri")).message
    resource = error.details[error_details_pb2.ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == ("execution", "spring-manu")
    assert told(await refused_get(planner, str(uuid4()))).code is grpc.StatusCode.NOT_FOUND
    call = str(call_id(UUID(execution.id), 3))
    assert f"a call or artifact of execution {execution.id}" in told(await refused_get(planner, call)).message
    assert told(await refused_get(planner, "spring-menu", "elsewhere")).code is grpc.StatusCode.NOT_FOUND
    error = told(await refused_get(planner, " "))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MISSING_EXECUTION")


async def test_a_part_of_several_ids_is_ambiguous(planner: Serving) -> None:
    both = [await planner.start(flow_header()) for _ in range(2)]
    error = told(await refused_get(planner, both[0].id[:6]))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AMBIGUOUS_EXECUTION")
    assert all(execution.id in error.message for execution in both)
    assert error_details_pb2.PreconditionFailure in error.details


async def test_an_execution_says_that_nothing_can_run_it(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(flow_header())
    assert (await planner.get(execution.id)).pending_reason == (
        "no connected executor has kitchens:content; start one with: dalsegno worker kitchens"
    )
    session = uuid4()
    await connection.execute(
        "INSERT INTO sessions (id, executor, project, expires_at)"
        " VALUES ($1, 'host', 'default', clock_timestamp() + interval '1 minute')",
        session,
    )
    await connection.execute("INSERT INTO session_routes VALUES ('default/kitchens:content', $1)", session)
    assert (await planner.get(execution.id)).pending_reason == ""
    changed = await planner.start(
        flow_header(definition=DefinitionRef(module="kitchens", name="content", pinned_digest="0123456789abcdef"))
    )
    assert (await planner.get(changed.id)).pending_reason == (
        "kitchens:content is pinned to the code that it was started with (0123456789ab), which no connected executor "
        "has: theirs differs; bring that code back and start one with: dalsegno worker kitchens; or replay it, with "
        "today's code"
    )


async def test_executions_are_listed_in_pages_the_newest_first(planner: Serving, connection: Connection) -> None:
    started = [await planner.start(flow_header(inputs={"x": json_value(at)})) for at in range(5)]
    seen: list[Execution] = []
    token = ""
    while True:
        page = await planner.executions.List(ExecutionServiceListRequest(page_size=2, page_token=token))
        seen += page.executions
        token = page.next_page_token
        if not token:
            break
    assert [one.id for one in seen] == [one.id for one in reversed(started)]
    assert not seen[0].inputs.values
    assert "no connected executor" in seen[0].pending_reason

    await set_state(connection, started[1].id, "failed")
    await planner.start(pipeline_header(project="other"), [step("a")])

    async def count(**only: Any) -> int:
        return len((await planner.executions.List(ExecutionServiceListRequest(**only))).executions)

    assert await count() == 6
    assert await count(project="other") == 1
    assert await count(flow="content") == 5
    assert await count(states=[states.EXECUTION_STATE_FAILED, states.EXECUTION_STATE_COMPLETED]) == 1
    assert await count(original_exec_id=started[0].id) == 0


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ExecutionServiceListRequest(page_token="?"), "INVALID_PAGE_TOKEN"),
        (ExecutionServiceListRequest(page_token="bm90IGEgdXVpZA"), "INVALID_PAGE_TOKEN"),
        (ExecutionServiceListRequest(original_exec_id="first"), "INVALID_UUID"),
        (ExecutionServiceListRequest(states=[0]), "UNKNOWN_STATE"),  # type: ignore[list-item]
        (ExecutionServiceListRequest(states=[99]), "UNKNOWN_STATE"),  # type: ignore[list-item]
    ],
)
async def test_a_wrong_list_request_is_refused(
    planner: Serving, request_: ExecutionServiceListRequest, reason: str
) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await planner.executions.List(request_)
    assert (told(error.value).code, told(error.value).reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_invocations_show_what_their_tasks_are_doing(planner: Serving, connection: Connection) -> None:
    steps = [step(name) for name in "abcde"] + [step("f", x=output(1))]
    execution = await planner.start(pipeline_header(), steps)
    await complete(connection, execution.id, 1, 42)
    await connection.execute("UPDATE tasks SET session_id = $1 WHERE number IN (2, 3)", uuid4())
    await connection.execute("UPDATE tasks SET running = true WHERE number = 3")
    await connection.execute("UPDATE tasks SET available_at = 'infinity' WHERE number = 4")
    seen: list[Invocation] = []
    token = ""
    while True:
        request = ExecutionServiceListInvocationsRequest(execution=execution.id, page_size=4, page_token=token)
        page = await planner.executions.ListInvocations(request)
        seen += page.invocations
        token = page.next_page_token
        if not token:
            break
    assert [one.state for one in seen] == [
        states.INVOCATION_STATE_COMPLETED,
        states.INVOCATION_STATE_LEASED,
        states.INVOCATION_STATE_RUNNING,
        states.INVOCATION_STATE_PENDING,
        states.INVOCATION_STATE_READY,
        states.INVOCATION_STATE_PENDING,
    ]
    first = seen[0]
    assert first.call_id == str(call_id(UUID(execution.id), 1))
    assert not first.original_call_id
    assert first.outputs.outputs[0].payload.inline == b"42"
    assert (first.definition.module, first.definition.name) == ("training", "a")


async def test_a_call_in_a_body_runs_only_while_somebody_has_the_body(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(flow_header())
    await connection.execute(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module, started_at)"
        " VALUES ($1, 1, 1, 'draft', 'draft', 'step', 'pending', 'kitchens', clock_timestamp())",
        UUID(execution.id),
    )

    async def state() -> int:
        request = ExecutionServiceListInvocationsRequest(execution=execution.id)
        return (await planner.executions.ListInvocations(request)).invocations[0].state

    assert await state() == states.INVOCATION_STATE_READY
    await connection.execute("UPDATE tasks SET session_id = $1, running = true", uuid4())
    assert await state() == states.INVOCATION_STATE_RUNNING


async def test_reused_invocations_are_read_through_the_lineage(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(
        pipeline_header(), [step("load"), step("fit", x=output(1)), step("report", x=output(2))]
    )
    for number in (1, 2, 3):
        await complete(connection, execution.id, number, number)
    again, once_more = new_execution_id(), new_execution_id()
    await replay(connection, execution.id, again, [2, 3])
    await complete(connection, str(again), 2, 22)
    await complete(connection, str(again), 3, 33)
    await replay(connection, str(again), once_more, [3])
    await connection.execute("INSERT INTO lineage VALUES ($1, 2, $2, 1000)", once_more, UUID(execution.id))
    request = ExecutionServiceListInvocationsRequest(execution=str(once_more), page_size=2)
    page = await planner.executions.ListInvocations(request)
    load, fit = page.invocations
    assert (load.state, fit.state) == (states.INVOCATION_STATE_REUSED, states.INVOCATION_STATE_REUSED)
    assert load.call_id == load.original_call_id == str(call_id(UUID(execution.id), 1))
    assert fit.call_id == fit.original_call_id == str(call_id(again, 2))
    assert fit.outputs.outputs[0].payload.inline == b"22"
    request.page_token = page.next_page_token
    (report,) = (await planner.executions.ListInvocations(request)).invocations
    assert report.state == states.INVOCATION_STATE_PENDING
    assert report.call_id == str(call_id(once_more, 3))
    listed = await planner.executions.List(ExecutionServiceListRequest(original_exec_id=str(again)))
    assert [one.id for one in listed.executions] == [str(once_more)]


async def test_invocations_are_selected(planner: Serving) -> None:
    execution = await planner.start(pipeline_header(), [step(name) for name in ("work", "work_2", "load", "work_3")])

    async def listed(selector: str, page_size: int = 0) -> list[str]:
        ids: list[str] = []
        request = ExecutionServiceListInvocationsRequest(execution=execution.id, selector=selector, page_size=page_size)
        while not ids or request.page_token:
            page = await planner.executions.ListInvocations(request)
            ids += [one.invocation_id for one in page.invocations]
            request.page_token = page.next_page_token
        return ids

    assert await listed("load") == ["load"]
    assert await listed("invocation:work") == ["work"]
    assert await listed(f"call:{call_id(UUID(execution.id), 4)}") == ["work_3"]
    assert await listed("all:work") == await listed("all:work", page_size=2) == ["work", "work_2", "work_3"]
    for selector, code, reason in (
        ("work", grpc.StatusCode.FAILED_PRECONDITION, "AMBIGUOUS_SELECTOR"),
        ("lode", grpc.StatusCode.FAILED_PRECONDITION, "NO_MATCH"),
        ("all:", grpc.StatusCode.INVALID_ARGUMENT, "BLANK_SELECTOR"),
    ):
        with pytest.raises(aio.AioRpcError) as error:
            await listed(selector)
        assert (error.value.code(), told(error.value).reason) == (code, reason)


async def test_a_pipelines_result_is_put_together(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(result=output(2)), [step("a"), step("b", x=output(1))])
    await complete(connection, execution.id, 1, 1)
    await complete(connection, execution.id, 2, {"accuracy": 0.9})
    assert not (await planner.get(execution.id)).HasField("result")
    await set_state(connection, execution.id, "completed")
    assert (await planner.get(execution.id)).result.inline == b'{"accuracy": 0.9}'
    assert artifact_id(UUID(execution.id), 2, 0) != UUID(execution.id)


async def test_failed_attempts_are_listed(planner: Serving, connection: Connection) -> None:
    execution = await planner.start(pipeline_header(), [step("a"), step("b")])
    for number, attempt in ((2, 1), (1, 1), (1, 2)):
        await connection.execute(
            "INSERT INTO attempts VALUES ($1, $2, $3, 'host', clock_timestamp(), clock_timestamp(), $4)",
            UUID(execution.id),
            number,
            attempt,
            Failure(message="no luck").SerializeToString(),
        )
    request = ExecutionServiceListAttemptsRequest(execution=execution.id)
    attempts = (await planner.executions.ListAttempts(request)).attempts
    assert [(one.attempt, one.failure.message, one.executor) for one in attempts] == [
        (1, "no luck", "host"),
        (1, "no luck", "host"),
        (2, "no luck", "host"),
    ]
    request.number = 1
    assert [one.attempt for one in (await planner.executions.ListAttempts(request)).attempts] == [1, 2]
    request.number = 2**31
    with pytest.raises(aio.AioRpcError) as error:
        await planner.executions.ListAttempts(request)
    assert told(error.value).reason == "INVALID_NUMBER"
