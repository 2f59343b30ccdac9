"""A runner and its step tasks, over a real socket pair."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated

import pytest

from dalsegno import step
from dalsegno.errors import ContextError
from dalsegno.payloads import from_payload
from dalsegno.v1.execution_pb2 import (
    FAILURE_ORIGIN_BACKEND,
    FAILURE_ORIGIN_RUNTIME,
    FAILURE_ORIGIN_USER_CODE,
    LANE_BULK,
)
from dalsegno.v1.executor_service_pb2 import Cancel, Drain, UpstreamOutputs, Welcome
from dalsegno.v1.value_pb2 import Binding, BindingEntry, BindingList, BindingMap, FlowInputs, OutputRef
from tests.unit.executor_side import embedded, outputs, payload, step_task


@step
def add(a: int, b: int = 10) -> int:
    return a + b


@step
def divide(a: int) -> tuple[Annotated[int, "quotient"], Annotated[int, "rest"]]:
    if a < 0:
        return a  # type: ignore[return-value]
    return divmod(a, 3)


@step
async def later(a: int) -> int:
    await asyncio.sleep(0)
    return a * 2


@step(retries=1, retry_delay=0.5, retry_jitter=0.0)
def fails(kind: str) -> None:
    if kind == "exit":
        raise SystemExit(3)
    if kind == "object":
        return object()  # type: ignore[return-value]
    raise LookupError(kind)


@step
def echo(value: object) -> object:
    return value


@step
def nested() -> int:
    return add(1)


entered, released = threading.Event(), threading.Event()


@step
def blocks() -> int:
    entered.set()
    assert released.wait(20)
    return 1


def test_a_step_completes_with_its_output() -> None:
    with embedded(add) as talk:
        talk.give(step_task(add, 7, a=1))
        report = talk.report()
        assert report.token.number == 7
        [output] = report.completed.outputs.outputs
        assert (output.name, from_payload(output.payload, None)) == ("output", 11)
        assert report.completed.code_digest == add.digest
        assert report.completed.started_at.seconds > 0
        assert report.report_id == 0


def test_many_steps_complete_each_once() -> None:
    with embedded(add, step_threads=3) as talk:
        talk.give(*(step_task(add, number, a=number) for number in range(1, 301)))
        numbers = [talk.report().token.number for _ in range(300)]
        assert sorted(numbers) == list(range(1, 301))


def test_several_outputs_have_their_names() -> None:
    with embedded(divide) as talk:
        talk.give(step_task(divide, a=7))
        found = talk.report().completed.outputs.outputs
        assert [(one.name, from_payload(one.payload, None)) for one in found] == [("quotient", 2), ("rest", 1)]


def test_an_async_step_runs_to_its_end() -> None:
    with embedded(later) as talk:
        talk.give(step_task(later, 1, a=4), step_task(later, 2, a=5))
        values = [from_payload(talk.report().completed.outputs.outputs[0].payload, None) for _ in range(2)]
        assert values == [8, 10]


def test_inputs_come_from_outputs_and_flow_inputs_also_nested() -> None:
    task = step_task(echo)
    ref = Binding(output=OutputRef(number=4, output="output"))
    entries = [
        BindingEntry(text="flow", value=Binding(flow_input="topic")),
        BindingEntry(encoded=payload(1), value=Binding(tuple=BindingList(items=[ref]))),
    ]
    task.step.inputs.bindings["value"].CopyFrom(
        Binding(list=BindingList(items=[ref, Binding(map=BindingMap(entries=entries))]))
    )
    task.step.upstream.append(UpstreamOutputs(number=4, outputs=outputs("up")))
    task.step.flow_inputs.CopyFrom(FlowInputs(values={"topic": payload("kitchens")}))
    with embedded(echo) as talk:
        talk.give(task)
        value = from_payload(talk.report().completed.outputs.outputs[0].payload, None)
        assert value == ["up", {"flow": "kitchens", 1: ("up",)}]


@pytest.mark.parametrize(
    ("kind", "exception", "message"),
    [
        ("key", "builtins:LookupError", "key"),
        ("exit", "builtins:SystemExit", "3"),
        ("object", "dalsegno.errors:UsageError", "object"),
    ],
)
def test_a_failed_attempt_is_tried_again_and_the_last_one_is_final(kind: str, exception: str, message: str) -> None:
    with embedded(fails) as talk:
        talk.give(step_task(fails, kind=kind))
        first = talk.report().attempt_failed
        assert first.delay.ToNanoseconds() == 500_000_000
        assert first.attempt.failure.origin == FAILURE_ORIGIN_USER_CODE
        talk.give(step_task(fails, attempt=2, kind=kind))
        failure = talk.report().failed.failure
        assert (failure.exception_type, failure.attempt) == (exception, 2)
        assert message in failure.message


def test_a_traceback_starts_in_the_users_code() -> None:
    with embedded(fails) as talk:
        talk.give(step_task(fails, attempt=2, kind="key"))
        lines = talk.report().failed.failure.traceback.splitlines()
        assert lines[0].startswith("Traceback")
        assert __file__ in lines[1]


def test_wrong_outputs_are_the_steps_fault() -> None:
    with embedded(divide) as talk:
        talk.give(step_task(divide, a=-1))
        failure = talk.report().failed.failure
        assert failure.origin == FAILURE_ORIGIN_USER_CODE
        assert "quotient, rest" in failure.message


def test_an_input_that_was_not_sent_is_the_planners() -> None:
    task = step_task(echo)
    task.step.inputs.bindings["value"].output.number = 3
    with embedded(echo) as talk:
        talk.give(task)
        assert talk.report().failed.failure.origin == FAILURE_ORIGIN_BACKEND


def test_code_that_is_not_here_is_said_so() -> None:
    with embedded(add) as talk:
        talk.give(step_task(echo, value=1))
        failure = talk.report().failed.failure
        assert failure.origin == FAILURE_ORIGIN_RUNTIME
        assert "'echo'" in failure.message


def test_another_version_of_the_code_is_not_run() -> None:
    task = step_task(add, a=1)
    task.definition.pinned_digest = "0" * 64
    with embedded(add) as talk:
        talk.give(task)
        assert "another version" in talk.report().failed.failure.message


def test_a_step_inside_a_step_is_refused() -> None:
    with embedded(nested, add) as talk:
        talk.give(step_task(nested))
        failure = talk.report().failed.failure
        assert failure.exception_type == f"{ContextError.__module__}:ContextError"


def test_values_above_the_limits_go_to_the_store_or_are_refused(tmp_path: object) -> None:
    with embedded(echo) as talk:
        url = f"file://{tmp_path}"
        talk.tell(welcome=Welcome(object_store_url=url, inline_limit=100, payload_limit=2000))
        talk.give(step_task(echo, 1, value="x" * 500), step_task(echo, 2, value="x" * 5000))
        stored, refused = talk.report(), talk.report()
        assert stored.completed.outputs.outputs[0].payload.object_key.startswith("blobs/")
        assert "limit" in refused.failed.failure.message


def test_what_has_not_started_is_handed_back() -> None:
    entered.clear()
    released.clear()
    with embedded(blocks, add) as talk:
        talk.give(step_task(blocks, 1), step_task(add, 2, a=1), step_task(add, 3, a=1))
        assert entered.wait(20)
        talk.tell(cancel=Cancel(tokens=[step_task(add, 3).token, step_task(blocks, 1).token]))
        assert [one.number for one in talk.expect("returned").returned.tokens] == [3]
        talk.tell(drain=Drain())
        assert [one.number for one in talk.expect("returned").returned.tokens] == [2]
        released.set()
        assert talk.report().token.number == 1


def test_live_steps_go_before_those_that_wait() -> None:
    entered.clear()
    released.clear()
    with embedded(blocks, add) as talk:
        bulk = step_task(add, 2, a=1)
        bulk.lane = LANE_BULK
        talk.give(step_task(blocks, 1), bulk)
        assert entered.wait(20)
        talk.give(step_task(add, 3, a=1))
        talk.tell(cancel=Cancel(tokens=[step_task(blocks, 1).token]))
        talk.expect("returned")  # so the step has arrived
        released.set()
        assert [talk.report().token.number for _ in range(3)] == [1, 3, 2]
