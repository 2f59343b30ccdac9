"""LogService: what executors have sent is listed, in pages, by time."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from dalsegno.v1.execution_pb2 import Execution
from dalsegno.v1.execution_service_pb2 import ExecutionServiceDeleteRequest
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, LogLines, TaskToken, WrittenLine
from dalsegno.v1.log_pb2 import LogLine
from dalsegno.v1.log_service_pb2 import LogServiceListRequest
from dalsegno_planner.dispatch.logs import LONGEST_LINE, LogWriter
from dalsegno_planner.store.pool import Connection, open_pool
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, pipeline_header, step, told


@pytest.fixture
async def execution(planner: Serving) -> Execution:
    """Two steps that can run."""
    return await planner.start(pipeline_header(), [step("work"), step("work_2")])


def written(token: TaskToken, text: str, second: int, **fields: Any) -> WrittenLine:
    given = {"number": token.number, "invocation_id": "work", "attempt": 1, "level": "stdout", **fields}
    return WrittenLine(token=token, line=LogLine(time=Timestamp(seconds=second), text=text, **given))


def write(worker: ScriptedWorker, *lines: WrittenLine) -> None:
    worker.send(log_lines=LogLines(lines=lines))


async def listed(planner: Serving, execution: str, **fields: Any) -> list[str]:
    response = await planner.logs.List(LogServiceListRequest(execution=execution, **fields))
    return [line.text for line in response.lines]


async def test_lines_are_there_when_a_later_report_is_durable(planner: Serving, execution: Execution) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        write(worker, written(task.token, "loss 0.5", 1_700_000_000, level="INFO", logger="training", attempt=2))
        await worker.ack(worker.complete(task))
        response = await planner.logs.List(LogServiceListRequest(execution=execution.id))
    (line,) = response.lines
    assert line == LogLine(
        time=Timestamp(seconds=1_700_000_000),
        number=task.token.number,
        invocation_id="work",
        attempt=2,
        level="INFO",
        logger="training",
        text="loss 0.5",
    )
    assert response.next_page_token == ""


async def test_lines_come_by_time_in_pages_of_one_invocation_or_all(planner: Serving, execution: Execution) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2)
        tasks = (await worker.next("tasks")).tasks
        first, second = sorted(tasks, key=lambda task: task.token.number)
        write(worker, *[written(second.token, f"late {number}", 5) for number in range(3)])
        write(worker, written(first.token, "early", 4), written(first.token, "", 9, left_out=7, number=0))
        write(worker, written(TaskToken(execution_id=uuid4().bytes), "of an unknown execution", 4))
        await worker.ack(worker.complete(first))
    assert await listed(planner, execution.id) == ["early", "late 0", "late 1", "late 2", ""]
    assert await listed(planner, execution.id, selector="invocation:work_2") == ["late 0", "late 1", "late 2", ""]
    assert await listed(planner, execution.id, selector="invocation:work") == ["early", ""]
    assert len(await listed(planner, execution.id, selector="all:work")) == 5
    request = LogServiceListRequest(execution=execution.id, page_size=2)
    pages: list[list[str]] = []
    while not pages or request.page_token:
        page = await planner.logs.List(request)
        pages.append([line.text for line in page.lines])
        request.page_token = page.next_page_token
    assert pages == [["early", "late 0"], ["late 1", "late 2"], [""]]


async def test_texts_that_postgres_does_not_take_are_made_fit(planner: Serving, execution: Execution) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        bad_time = WrittenLine(token=task.token, line=LogLine(time=Timestamp(seconds=2**60), text="of no time"))
        huge = written(task.token, "x" * (LONGEST_LINE + 1), 2, number=2**32 - 1)
        write(worker, written(task.token, "zero \0", 1), huge, bad_time)
        await worker.ack(worker.complete(task))
    assert await listed(planner, execution.id) == ["zero \\0", "x" * LONGEST_LINE, "of no time"]


async def test_pages_are_bounded_in_bytes(planner: Serving, execution: Execution) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        write(worker, *[written(task.token, "x" * LONGEST_LINE, number) for number in range(70)])
        await worker.ack(worker.complete(task))
    page = await planner.logs.List(LogServiceListRequest(execution=execution.id))
    assert len(page.lines) == 64
    rest = await planner.logs.List(LogServiceListRequest(execution=execution.id, page_token=page.next_page_token))
    assert len(rest.lines) == 6


async def test_what_is_refused(planner: Serving, execution: Execution) -> None:
    async def refused(**fields: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(aio.AioRpcError) as error:
            await listed(planner, **fields)
        return error.value.code(), told(error.value).reason

    assert await refused(execution=str(uuid4())) == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
    code, _ = await refused(execution=execution.id, selector="wrok")
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    code, _ = await refused(execution=execution.id, selector=" ")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    for token in ("!", "MTI", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OS4x", "MS4tMQ"):
        code, reason = await refused(execution=execution.id, page_token=token)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"), token


async def test_results_do_not_wait_for_logs_that_cannot_be_written(
    planner: Serving, connection: Connection, execution: Execution
) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE logs")
        async with scripted_worker(planner.channel) as worker:
            await worker.hello()
            worker.credit(steps=2)
            for task in (await worker.next("tasks")).tasks:
                write(worker, written(task.token, "stuck", 1))
                assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_a_writer_that_is_behind_leaves_out_and_counts(
    database: str, planner: Serving, connection: Connection, execution: Execution
) -> None:
    token = TaskToken(execution_id=UUID(execution.id).bytes, number=1, epoch=1)
    pool = await open_pool(database, max_size=1)
    writer = LogWriter(capacity=400)
    stored = writer.add(written(token, f"{number} " + "x" * 98, number + 1) for number in range(5))
    writer.start(pool)
    await writer.wait(stored)
    assert stored.done()
    await writer.stop()
    await pool.close()
    response = await planner.logs.List(LogServiceListRequest(execution=execution.id))
    assert [(line.text[:1], line.left_out) for line in response.lines] == [("0", 0), ("1", 0), ("", 3)]


async def test_logs_go_with_their_execution(planner: Serving, connection: Connection, execution: Execution) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2)
        for task in (await worker.next("tasks")).tasks:
            write(worker, written(task.token, "line", 1))
            await worker.ack(worker.complete(task))
    assert await connection.fetchval("SELECT count(*) FROM logs") == 2
    await planner.executions.Delete(ExecutionServiceDeleteRequest(execution=execution.id))
    assert await connection.fetchval("SELECT count(*) FROM logs") == 0
