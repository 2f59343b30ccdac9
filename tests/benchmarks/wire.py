"""Large graphs as bytes, made before the clock starts, so that it is the planner that is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import grpc

from dalsegno.payloads import inline_payload
from dalsegno.v1 import definition_pb2, execution_pb2, execution_service_pb2, value_pb2
from dalsegno.v1.execution_service_pb2_grpc import ExecutionServiceStub
from dalsegno.values import encode
from tests.benchmarks.engine import CODE, PROJECT

CHAIN = 100
"""How long the chains of a graph are, so how much a replay from the first link of one affects."""

_STEPS_A_MESSAGE = 1_000
_SERVICE = "/dalsegno.v1.ExecutionService"

_OPEN = frozenset({execution_pb2.EXECUTION_STATE_PENDING, execution_pb2.EXECUTION_STATE_RUNNING})

Response = TypeVar("Response")


class Wire:
    """The planner's executions, without the SDK.

    Args:
        address: The planner's.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 1 << 26)])
        self._executions = ExecutionServiceStub(self._channel)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def import_(self, messages: Sequence[bytes]) -> str:
        """Imports an execution and returns its ID."""
        answer = self._stream("Import", messages, execution_service_pb2.ExecutionServiceImportResponse)
        return str(answer.execution.id)

    def start(self, messages: Sequence[bytes]) -> str:
        """Starts an execution and returns its ID."""
        answer = self._stream("Start", messages, execution_service_pb2.ExecutionServiceStartResponse)
        return str(answer.execution.id)

    def running_seconds(self, execution_id: str) -> float:
        """Returns the seconds from an execution's first claim to its last commit, by the database's clock."""
        found = self._get(execution_id)
        return _seconds_between(found.started_at.ToDatetime(), found.finished_at.ToDatetime())

    def is_open(self, execution_id: str) -> bool:
        """Returns whether an execution has not ended."""
        return self._get(execution_id).state in _OPEN

    def cancel(self, execution_id: str) -> None:
        """Cancels an execution."""
        self._executions.Cancel(execution_service_pb2.ExecutionServiceCancelRequest(execution=execution_id))

    def round_trip(self, execution_id: str) -> None:
        """Asks for one execution: the least that a request costs."""
        self._get(execution_id)

    def _get(self, execution_id: str) -> execution_pb2.Execution:
        request = execution_service_pb2.ExecutionServiceGetRequest(execution=execution_id, project=PROJECT)
        return self._executions.Get(request).execution

    def _stream(self, method: str, messages: Sequence[bytes], response: type[Response]) -> Response:
        call: Any = self._channel.stream_unary(
            f"{_SERVICE}/{method}",
            request_serializer=lambda message: message,
            response_deserializer=response.FromString,  # type: ignore[attr-defined]
        )
        answer: Response = call(iter(messages))
        return answer


def imported_chains(count: int) -> list[bytes]:
    """Returns a finished pipeline of `count` steps: a source, and chains of 100 that all start from it."""
    header = execution_service_pb2.ImportHeader(
        project=PROJECT,
        definition=definition_pb2.DefinitionRef(module=CODE, name=f"chains_{count}"),
        kind=definition_pb2.DEFINITION_KIND_PIPELINE,
    )
    message = execution_service_pb2.ExecutionServiceImportRequest
    output = value_pb2.Outputs(outputs=[value_pb2.Output(name="output", payload=inline_payload(encode(1)))])
    steps = (
        execution_service_pb2.ImportedStep(step=step, outputs=output)
        for step in map(_chained_step, range(1, count + 1))
    )
    pages = (
        message(steps=execution_service_pb2.ImportedSteps(steps=page)).SerializeToString() for page in _pages(steps)
    )
    return [message(header=header).SerializeToString(), *pages]


def started_independent(count: int) -> list[bytes]:
    """Returns a pipeline of `count` steps that wait for nothing, as the SDK would start it."""
    header = execution_service_pb2.StartHeader(
        project=PROJECT,
        definition=definition_pb2.DefinitionRef(module=CODE, name="independent"),
        kind=definition_pb2.DEFINITION_KIND_PIPELINE,
    )
    message = execution_service_pb2.ExecutionServiceStartRequest
    steps = (
        execution_service_pb2.StepSpec(
            invocation_id=f"no_op_{number}",
            definition=definition_pb2.DefinitionRef(module=CODE, name="no_op"),
        )
        for number in range(1, count + 1)
    )
    pages = (message(steps=execution_service_pb2.StepSpecs(steps=page)).SerializeToString() for page in _pages(steps))
    return [message(header=header).SerializeToString(), *pages]


def first_link(chain: int) -> str:
    """Returns the selector of the step that only one chain depends on."""
    return f"invocation:link_{2 + chain * CHAIN}"


SOURCE = "invocation:link_1"
"""The selector of the step that everything depends on."""


def _chained_step(number: int) -> execution_service_pb2.StepSpec:
    step = execution_service_pb2.StepSpec(
        invocation_id=f"link_{number}",
        definition=definition_pb2.DefinitionRef(module=CODE, name="increment"),
    )
    binding = step.inputs.bindings["value"]
    if number == 1:
        binding.value.CopyFrom(inline_payload(encode(0)))
    else:
        is_first_of_chain = (number - 2) % CHAIN == 0
        binding.output.number = 1 if is_first_of_chain else number - 1
        binding.output.output = "output"
    return step


def _pages(steps: Iterator[Any]) -> Iterator[list[Any]]:
    page: list[Any] = []
    for step in steps:
        page.append(step)
        if len(page) == _STEPS_A_MESSAGE:
            yield page
            page = []
    if page:
        yield page


def _seconds_between(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()
