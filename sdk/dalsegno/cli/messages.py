"""What the planner answers, turned into what the command line shows. Nothing is fetched here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dalsegno.cli.views import AttemptView, ExecutionView, StepView, WaitView
from dalsegno.client.times import moment
from dalsegno.failures import failure_of
from dalsegno.replay_warnings import replay_warnings
from dalsegno.states import ExecutionState, InvocationState

if TYPE_CHECKING:
    from dalsegno.v1 import execution_pb2, value_pb2, wait_service_pb2

Decode = Callable[["value_pb2.Payload"], object]


def execution_view(message: execution_pb2.Execution, decode: Decode) -> ExecutionView:
    """Convert an execution.

    Args:
        message: As the planner has it.
        decode: Returns the value of a payload as JSON shows it.
    """
    from dalsegno.client.lanes import lane_of
    from dalsegno.client.results import result_of
    from dalsegno.v1 import definition_pb2, execution_pb2

    return ExecutionView(
        exec_id=message.id,
        name=message.name,
        flow=message.flow,
        kind=_word(definition_pb2.DefinitionKind.Name(message.kind), "DEFINITION_KIND_"),
        state=ExecutionState(_word(execution_pb2.ExecutionState.Name(message.state), "EXECUTION_STATE_")),
        project=message.project,
        original_exec_id=message.original_exec_id or None,
        created_at=moment(message, "created_at"),
        started_at=moment(message, "started_at"),
        finished_at=moment(message, "finished_at"),
        inputs={name: decode(payload) for name, payload in sorted(message.inputs.values.items())},
        result=result_of(message, decode),
        overridden_inputs=tuple(message.overridden_inputs),
        failure=failure_of(message.failure) if message.HasField("failure") else None,
        pending_reason=message.pending_reason or None,
        warnings=replay_warnings(message),
        step_count=message.invocation_count,
        deadline=moment(message, "deadline"),
        lane=lane_of(message),
        priority=message.priority,
    )


def step_views(messages: Sequence[execution_pb2.Invocation]) -> list[StepView]:
    """Convert invocations; those upstream of one are named as far as they are among these."""
    names = {message.number: message.invocation_id for message in messages}
    return [step_view(message, names) for message in messages]


def step_view(message: execution_pb2.Invocation, names: Mapping[int, str]) -> StepView:
    """Convert one invocation; `names` has the invocation IDs of others by their number."""
    from dalsegno.client.progress import progress_of
    from dalsegno.v1 import execution_pb2

    upstream = dict.fromkeys((*_taken(message.inputs), *message.after))
    return StepView(
        invocation_id=message.invocation_id,
        name=message.name,
        state=InvocationState(_word(execution_pb2.InvocationState.Name(message.state), "INVOCATION_STATE_")),
        is_wait=message.kind == execution_pb2.INVOCATION_KIND_WAIT,
        call_id=message.call_id,
        original_call_id=message.original_call_id or None,
        started_at=moment(message, "started_at"),
        finished_at=moment(message, "finished_at"),
        upstream=tuple(names.get(number, f"#{number}") for number in upstream),
        output_overridden=message.output_overridden,
        overridden_inputs=tuple(message.overridden_inputs),
        stale_inputs=message.stale_inputs,
        attempt=message.attempt,
        failure=failure_of(message.failure) if message.HasField("failure") else None,
        progress=progress_of(message),
    )


def attempt_view(message: execution_pb2.Attempt) -> AttemptView:
    """Convert a failed attempt."""
    return AttemptView(
        attempt=message.attempt,
        failure=failure_of(message.failure),
        executor=message.executor,
        started_at=moment(message, "started_at"),
        finished_at=moment(message, "finished_at"),
    )


def wait_view(message: wait_service_pb2.Wait) -> WaitView:
    """Convert a wait."""
    from dalsegno.v1 import wait_service_pb2

    return WaitView(
        name=message.invocation_id,
        state=_word(wait_service_pb2.WaitState.Name(message.state), "WAIT_STATE_"),
        question=message.question or None,
        schema=json.loads(message.schema) if message.schema else None,
        asked_at=moment(message, "asked_at"),
        deadline=moment(message, "deadline"),
    )


def _taken(inputs: value_pb2.Inputs) -> Iterator[int]:
    for name in sorted(inputs.bindings):
        yield from _producers(inputs.bindings[name])


def _producers(binding: value_pb2.Binding) -> Iterator[int]:
    match binding.WhichOneof("kind"):
        case "output":
            yield binding.output.number
            yield from (other.number for other in binding.output.alternatives)
        case "list":
            yield from _each(binding.list.items)
        case "tuple":
            yield from _each(binding.tuple.items)
        case "map":
            yield from _each(entry.value for entry in binding.map.entries)


def _each(bindings: Iterable[value_pb2.Binding]) -> Iterator[int]:
    for binding in bindings:
        yield from _producers(binding)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
