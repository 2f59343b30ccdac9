"""An executor that does what a test tells it to, and nothing else: it may lie, sleep and repeat itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from google.protobuf.duration_pb2 import Duration
from grpc import aio

from dalsegno.v1 import definition_pb2, execution_pb2, executor_service_pb2, value_pb2
from dalsegno.v1.executor_service_pb2 import ExecutorServiceWorkRequest as Request
from dalsegno.v1.executor_service_pb2 import ExecutorServiceWorkResponse as Response
from dalsegno.v1.executor_service_pb2_grpc import ExecutorServiceStub

if TYPE_CHECKING:
    from dalsegno.v1.executor_service_pb2_grpc import ExecutorServiceAsyncStub

PATIENCE = 20.0
STEP = definition_pb2.Definition(
    kind=definition_pb2.DEFINITION_KIND_STEP, module="training", name="work", digest="d" * 64
)
FLOW = definition_pb2.Definition(
    kind=definition_pb2.DEFINITION_KIND_FLOW, module="kitchens", name="content", digest="f" * 64
)


class ScriptedWorker:
    """One stream of an executor. Messages that arrive are sorted by kind and handed out one at a time."""

    def __init__(self, stub: ExecutorServiceAsyncStub, key: bytes) -> None:
        self.key = key
        self._reports = 0
        self._outgoing: asyncio.Queue[Request | None] = asyncio.Queue()
        self._arrived: dict[str, asyncio.Queue[Any]] = {}
        self._call = stub.Work(self._requests())
        self._reader = asyncio.create_task(self._read())

    async def hello(self, in_hand: Sequence[executor_service_pb2.TaskToken] = (), **fields: Any) -> Any:
        """Say hello, and return the welcome."""
        hello = {
            "session_key": self.key,
            "executor": "scripted",
            "project": "default",
            "definitions": [STEP, FLOW],
            "protocol_version": 1,
            "in_hand": in_hand,
            **fields,
        }
        self.send(hello=executor_service_pb2.Hello(**hello))
        return await self.next("welcome")

    def send(self, **message: Any) -> None:
        """Send one message."""
        self._outgoing.put_nowait(Request(**message))

    def credit(self, steps: int = 0, bodies: int = 0) -> None:
        """Offer free slots."""
        self.send(credit=executor_service_pb2.Credit(steps=steps, bodies=bodies))

    def accept(self, task: executor_service_pb2.Task) -> None:
        """Say that a task has arrived."""
        self.send(accepted=executor_service_pb2.Accepted(tokens=[task.token]))

    def report(self, token: executor_service_pb2.TaskToken, report_id: int | None = None, **kind: Any) -> int:
        """Report, and return the report's ID."""
        self._reports = report_id or self._reports + 1
        report = executor_service_pb2.Report(report_id=self._reports, token=token, **kind)
        self.send(reports=executor_service_pb2.Reports(reports=[report]))
        return self._reports

    def complete(self, task: executor_service_pb2.Task, value: bytes = b"1", report_id: int | None = None) -> int:
        """Report that a step has completed."""
        payload = value_pb2.Payload(codec="json", inline=value, size=len(value), canonical=True)
        outputs = value_pb2.Outputs(outputs=[value_pb2.Output(name="output", payload=payload)])
        return self.report(task.token, report_id, completed=executor_service_pb2.StepCompleted(outputs=outputs))

    def fail(self, task: executor_service_pb2.Task, message: str = "oops") -> int:
        """Report that a step has failed in its last attempt."""
        failure = execution_pb2.Failure(origin=execution_pb2.FAILURE_ORIGIN_USER_CODE, message=message)
        return self.report(task.token, failed=executor_service_pb2.TaskFailed(failure=failure))

    def retry(self, task: executor_service_pb2.Task, delay: Duration) -> int:
        """Report that an attempt has failed."""
        failed = executor_service_pb2.AttemptFailed(attempt=execution_pb2.Attempt(attempt=1), delay=delay)
        return self.report(task.token, attempt_failed=failed)

    async def next(self, kind: str) -> Any:
        """Return the next message of a kind: welcome, tasks, acks, resolved, cancel, or end."""
        return await asyncio.wait_for(self._queue(kind).get(), PATIENCE)

    async def task(self) -> executor_service_pb2.Task:
        """Return the next task, which has to come alone, and accept it."""
        tasks: executor_service_pb2.Tasks = await self.next("tasks")
        (task,) = tasks.tasks
        self.accept(task)
        return task

    async def ack(self, report_id: int) -> executor_service_pb2.Ack:
        """Return what became of a report."""
        while True:
            acks: executor_service_pb2.Acks = await self.next("acks")
            for ack in acks.acks:
                if ack.report_id == report_id:
                    return ack

    def count(self, kind: str) -> int:
        """How many messages of a kind have arrived and have not been taken."""
        return self._queue(kind).qsize()

    async def goodbye(self) -> None:
        """Close the stream in good order, and wait for its end."""
        self._outgoing.put_nowait(None)
        await self.next("end")

    def vanish(self) -> None:
        """Break the stream off, as a process that is killed does."""
        self._reader.cancel()
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[Request]:
        while (message := await self._outgoing.get()) is not None:
            yield message

    async def _read(self) -> None:
        try:
            async for response in self._call:
                assert isinstance(response, Response)
                kind = response.WhichOneof("message")
                assert kind is not None
                self._queue(kind).put_nowait(getattr(response, kind))
            self._queue("end").put_nowait(None)
        except aio.AioRpcError as error:
            self._queue("end").put_nowait(error)

    def _queue(self, kind: str) -> asyncio.Queue[Any]:
        return self._arrived.setdefault(kind, asyncio.Queue())


@asynccontextmanager
async def scripted_worker(channel: aio.Channel, key: bytes | None = None) -> AsyncIterator[ScriptedWorker]:
    """Open a stream; it breaks off at the end, unless it has said goodbye."""
    worker = ScriptedWorker(ExecutorServiceStub(channel), key or uuid4().bytes)
    try:
        yield worker
    finally:
        worker.vanish()


async def time_out(connection: Any, worker: ScriptedWorker) -> None:
    """Have the lease of an executor run out, as a planner does that has looked for long enough."""
    async with connection.transaction():  # so that nobody extends it in between
        await connection.execute("UPDATE sessions SET expires_at = '-infinity' WHERE id = $1", UUID(bytes=worker.key))
        await connection.execute("SELECT close_sessions(NULL)")
