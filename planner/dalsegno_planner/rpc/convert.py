"""Domain types to messages and back."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.errors import UsageError
from dalsegno.v1.definition_pb2 import DefinitionKind, DefinitionRef, StepOptions
from dalsegno.v1.execution_pb2 import Attempt as AttemptMessage
from dalsegno.v1.execution_pb2 import Execution as ExecutionMessage
from dalsegno.v1.execution_pb2 import ExecutionState as ExecutionStateMessage
from dalsegno.v1.execution_pb2 import Failure, Progress
from dalsegno.v1.execution_pb2 import Invocation as InvocationMessage
from dalsegno.v1.execution_pb2 import InvocationKind as InvocationKindMessage
from dalsegno.v1.execution_pb2 import InvocationState as InvocationStateMessage
from dalsegno.v1.value_pb2 import Binding, FlowInputs, Inputs, Outputs, Payload
from dalsegno.v1.wait_service_pb2 import Wait as WaitMessage
from dalsegno.v1.wait_service_pb2 import WaitState as WaitStateMessage
from dalsegno_planner.core.execution import (
    Attempt,
    Execution,
    ExecutionKind,
    ExecutionState,
    Invocation,
    Wait,
    WaitState,
)
from dalsegno_planner.core.lanes import lane_of, priority_of
from dalsegno_planner.rpc.ranks import LANE_MESSAGES
from dalsegno_planner.times import timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_TIMEOUT = 1e9
"""Seconds."""
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")

EXECUTION_KINDS: Mapping[DefinitionKind.ValueType, ExecutionKind] = {
    DefinitionKind.DEFINITION_KIND_FLOW: ExecutionKind.FLOW,
    DefinitionKind.DEFINITION_KIND_PIPELINE: ExecutionKind.PIPELINE,
}
KIND_MESSAGES = {kind: message for message, kind in EXECUTION_KINDS.items()}


def execution_message(
    execution: Execution, *, pending_reason: str = "", result: Payload | Binding | None = None
) -> ExecutionMessage:
    """Return the message for an execution.

    Args:
        execution: What it says.
        pending_reason: Why it does not go on.
        result: A pipeline's result; a flow's is in its row.
    """
    message = ExecutionMessage(
        id=str(execution.id),
        project=execution.project,
        name=execution.name,
        flow=execution.flow,
        kind=KIND_MESSAGES[execution.kind],
        state=execution_state_message(execution.state),
        created_at=timestamp(execution.created_at),
        started_at=timestamp(execution.started_at),
        finished_at=timestamp(execution.finished_at),
        debug=execution.debug,
        single_step=execution.single_step,
        pending_reason=pending_reason,
        definition=DefinitionRef(module=execution.module, name=execution.flow, pinned_digest=execution.pinned_digest),
        invocation_count=execution.invocation_count,
        requested_by=execution.requested_by,
        lane=LANE_MESSAGES[lane_of(execution.rank)],
        priority=priority_of(execution.rank),
    )
    if execution.source_id is not None:
        message.original_exec_id = str(execution.source_id)
    if execution.inputs:
        message.inputs.CopyFrom(FlowInputs.FromString(execution.inputs))
    if execution.result is not None:
        message.result.CopyFrom(Payload.FromString(execution.result))
    elif isinstance(result, Payload):
        message.result.CopyFrom(result)
    elif result is not None:
        message.result_parts.CopyFrom(result)
    if execution.failure is not None:
        message.failure.CopyFrom(Failure.FromString(execution.failure))
    if execution.time_limit is not None:
        message.timeout.FromNanoseconds(round(execution.time_limit * 1e9))
    if execution.deadline is not None:
        message.deadline.FromDatetime(execution.deadline)
    message.overridden_inputs.extend(overridden_inputs(execution))
    message.plan_warnings.extend(_texts(execution, "warnings"))
    return message


def overridden_inputs(execution: Execution) -> list[str]:
    """Return the names of the flow inputs that a replay overrides."""
    return _texts(execution, "inputs")


def _texts(execution: Execution, what: str) -> list[str]:
    kept = (execution.replay or {}).get(what)
    return [str(one) for one in kept] if isinstance(kept, list) else []


def invocation_message(invocation: Invocation, *, state: str = "", with_values: bool = True) -> InvocationMessage:
    """Return the message for an invocation.

    Args:
        invocation: What it says.
        state: The state that an event tells of, where it is not the present one.
        with_values: Whether inputs and outputs are wanted.
    """
    message = InvocationMessage(
        number=invocation.number,
        position=invocation.position,
        invocation_id=invocation.invocation_id,
        call_id=str(invocation.call_id),
        original_call_id=str(invocation.original_call_id or ""),
        name=invocation.name,
        kind=InvocationKindMessage.Value(f"INVOCATION_KIND_{invocation.kind.name}"),
        state=InvocationStateMessage.Value(f"INVOCATION_STATE_{(state or invocation.state).upper()}"),
        definition=DefinitionRef(
            module=invocation.module, name=invocation.name, pinned_digest=invocation.pinned_digest
        ),
        code_digest=invocation.code_digest,
        after=invocation.after,
        output_overridden=invocation.output_overridden,
        stale_inputs=invocation.stale_inputs,
        attempt=invocation.attempt,
        started_at=timestamp(invocation.started_at),
        finished_at=timestamp(invocation.finished_at),
        overridden_inputs=invocation.overridden_inputs,
    )
    if invocation.options:
        message.options.CopyFrom(StepOptions.FromString(invocation.options))
    if invocation.failure is not None:
        message.failure.CopyFrom(Failure.FromString(invocation.failure))
    if invocation.progress is not None and not invocation.reused:
        message.progress.CopyFrom(Progress.FromString(invocation.progress))
    if with_values:
        message.inputs.CopyFrom(Inputs.FromString(invocation.inputs))
        if invocation.outputs is not None:
            message.outputs.CopyFrom(Outputs.FromString(invocation.outputs))
    return message


def attempt_message(attempt: Attempt) -> AttemptMessage:
    """Return the message for an attempt."""
    return AttemptMessage(
        attempt=attempt.attempt,
        started_at=timestamp(attempt.started_at),
        finished_at=timestamp(attempt.finished_at),
        failure=Failure.FromString(attempt.failure) if attempt.failure is not None else None,
        executor=attempt.executor,
    )


def wait_message(wait: Wait) -> WaitMessage:
    """Return the message for a wait."""
    return WaitMessage(
        number=wait.number,
        invocation_id=wait.invocation_id,
        name=wait.name,
        question=wait.question,
        schema=wait.schema,
        state=wait_state_message(wait.state),
        asked_at=timestamp(wait.asked_at),
        deadline=timestamp(wait.deadline),
        metadata=wait.metadata,
        answer=Payload.FromString(wait.answer) if wait.answer is not None else None,
        answered_by=wait.answered_by,
        answered_at=timestamp(wait.answered_at),
    )


def wait_state_message(state: WaitState) -> WaitStateMessage.ValueType:
    """Return the message for the state of a wait."""
    return WaitStateMessage.Value(f"WAIT_STATE_{state.name}")


def execution_state_message(state: ExecutionState) -> ExecutionStateMessage.ValueType:
    """Return the message for the state of an execution."""
    return ExecutionStateMessage.Value(f"EXECUTION_STATE_{state.name}")


def execution_state(message: ExecutionStateMessage.ValueType, field: str) -> ExecutionState:
    """Return the state that a message says.

    Raises:
        UsageError: It says none.
    """
    if message not in ExecutionStateMessage.values() or message == ExecutionStateMessage.EXECUTION_STATE_UNSPECIFIED:
        raise UsageError(f"{field} has the unknown state {message}", reason="UNKNOWN_STATE", fields={"field": field})
    return ExecutionState(_value_name(ExecutionStateMessage.Name(message), "EXECUTION_STATE_"))


def moment(message: Timestamp) -> datetime:
    """Return the time that a message says.

    Raises:
        UsageError: It is outside the years 1 to 9999.
    """
    try:
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)
    except OverflowError as error:
        raise UsageError(f"a timestamp is out of range: {error}", reason="INVALID_TIMESTAMP") from None


def time_limit(message: Duration) -> float:
    """Return how many seconds an execution may take.

    Raises:
        UsageError: None, or more than there are in thirty years.
    """
    seconds = message.ToNanoseconds() / 1e9
    if not 0 < seconds < LONGEST_TIMEOUT:
        raise UsageError(
            f"timeout is {seconds:g} s; give a time from 0 to {LONGEST_TIMEOUT:g} s, or leave it out for no limit",
            reason="INVALID_TIMEOUT",
            fields={"field": "timeout"},
        )
    return seconds


def optional_uuid(text: str, field: str) -> UUID | None:
    """Return the UUID that a field says; None where it is empty.

    Raises:
        UsageError: It is something else.
    """
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(
            f"{field} is {text!r}, which is not a UUID", reason="INVALID_UUID", fields={"field": field, "value": text}
        ) from None


def page_size(asked: int, default: int, most: int) -> int:
    """Return how many entries a page has."""
    return min(asked or default, most)


def page_token(place: str) -> str:
    """Return the token that leads to a place."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def page_place(token: str) -> str:
    """Return the place that a token leads to; empty for an empty one.

    Raises:
        UsageError: The token is not one of ours.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise invalid_page_token(token) from None


def page_number(token: str) -> int:
    """Return the number that a token leads to; 0 for an empty one.

    Raises:
        UsageError: The token is not one of ours.
    """
    place = page_place(token) or "0"
    if not place.isdecimal() or int(place) >= 2**31:
        raise invalid_page_token(token)
    return int(place)


def page_uuid(token: str) -> UUID | None:
    """Return the ID that a token leads to; None for an empty one.

    Raises:
        UsageError: The token is not one of ours.
    """
    place = page_place(token)
    try:
        return UUID(place) if place else None
    except ValueError:
        raise invalid_page_token(token) from None


def invalid_page_token(token: str) -> UsageError:
    """Return the error for a token that leads nowhere."""
    return UsageError(
        f"the page token {token!r} is not one that this planner gave; start again with an empty one",
        reason="INVALID_PAGE_TOKEN",
        fields={"page_token": token},
    )


def is_name(text: str) -> bool:
    """Whether a text can be the name of something: 1 to 200 characters that print."""
    return _NAME.fullmatch(text) is not None


def _value_name(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
