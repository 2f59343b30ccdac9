"""A planner that has no Postgres and decides nothing: it gives out steps and calls every report durable."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration

from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_DURABLE,
    Ack,
    Acks,
    Credit,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    StepTask,
    Task,
    Tasks,
    TaskToken,
    Welcome,
)
from dalsegno.v1.executor_service_pb2_grpc import ExecutorServiceServicer, add_ExecutorServiceServicer_to_server
from tests.benchmarks.engine import CODE, PROJECT

_LEASE_S, _HEARTBEAT_S = 60, 10
_AT_ONCE = 256
"""Tasks of one message; a planner under load claims about as many at a time."""

_Response = ExecutorServiceWorkResponse


class ScriptedPlanner(ExecutorServiceServicer):
    """Serves one executor.

    Attributes:
        address: Where.
    """

    def __init__(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add_ExecutorServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._outgoing: queue.SimpleQueue[_Response | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: deque[Task] = deque()
        self._given: dict[int, Task] = {}
        self._credit = 0
        self._left = 0
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._outgoing.put(None)
        self._server.stop(1).wait()

    def run(self, steps: int, seconds: float) -> None:
        """Has the executor run so many steps that do nothing.

        Raises:
            TimeoutError: It has not within these seconds.
        """
        tasks = _no_ops(steps)
        with self._lock:
            self._waiting.extend(tasks)
            self._left = steps
            self._done.clear()
            self._give()
        if not self._done.wait(seconds):
            raise TimeoutError(f"{self._left:,} of {steps:,} steps were not reported in {seconds:.0f} s")

    def Work(  # noqa: N802 - named as the RPC is
        self, request_iterator: Iterator[ExecutorServiceWorkRequest], context: Any
    ) -> Iterator[_Response]:
        """One stream."""
        threading.Thread(target=self._listen, args=(request_iterator,), daemon=True).start()
        while (response := self._outgoing.get()) is not None:
            yield response

    def _listen(self, requests: Iterator[ExecutorServiceWorkRequest]) -> None:
        try:
            for request in requests:
                self._take(request)
        except grpc.RpcError:
            return  # the executor has gone

    def _take(self, request: ExecutorServiceWorkRequest) -> None:
        match request.WhichOneof("message"):
            case "hello":
                self._outgoing.put(
                    _Response(
                        welcome=Welcome(
                            protocol_version=1,
                            heartbeat_interval=Duration(seconds=_HEARTBEAT_S),
                            lease_duration=Duration(seconds=_LEASE_S),
                            accept_within=Duration(seconds=_LEASE_S),
                            inline_limit=1 << 16,
                            payload_limit=1 << 28,
                            credit_with_reports=True,
                            credit_instead=True,
                        )
                    )
                )
            case "credit":
                self._add_credit(request.credit)
            case "reports":
                acks = [Ack(report_id=one.report_id, status=ACK_STATUS_DURABLE) for one in request.reports.reports]
                self._outgoing.put(_Response(acks=Acks(acks=acks)))
                self._end([one.token.number for one in request.reports.reports])
                self._add_credit(request.reports.credit)
            case "returned":
                self._take_back([token.number for token in request.returned.tokens])

    def _add_credit(self, credit: Credit) -> None:
        with self._lock:
            self._credit = credit.steps + (0 if credit.instead else self._credit)
            self._give()

    def _end(self, numbers: Sequence[int]) -> None:
        with self._lock:
            for number in numbers:
                del self._given[number]
            self._left -= len(numbers)
            if self._left == 0:
                self._done.set()

    def _take_back(self, numbers: Sequence[int]) -> None:
        with self._lock:
            for number in numbers:
                task = self._given.pop(number)
                task.token.epoch += 1
                self._waiting.append(task)
            self._give()

    def _give(self) -> None:
        """Send as many tasks as there is credit for."""
        while batch := [self._waiting.popleft() for _ in range(min(self._credit, _AT_ONCE, len(self._waiting)))]:
            self._credit -= len(batch)
            self._given.update((task.token.number, task) for task in batch)
            self._outgoing.put(_Response(tasks=Tasks(tasks=batch)))


def _no_ops(count: int) -> list[Task]:
    execution_id = uuid4().bytes
    definition = DefinitionRef(module=CODE, name="no_op")
    return [
        Task(
            token=TaskToken(execution_id=execution_id, number=number, epoch=1),
            project=PROJECT,
            definition=definition,
            step=StepTask(invocation_id=f"no_op_{number}", attempt=1),
        )
        for number in range(1, count + 1)
    ]
