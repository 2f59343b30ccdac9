"""Tasks that carry much: what their steps take comes with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalsegno.v1.definition_pb2 import DefinitionRef, StepOptions
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_COMPLETED
from dalsegno.v1.execution_service_pb2 import StepSpec
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, Task
from dalsegno.v1.value_pb2 import Binding, BindingList, Inputs
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker
from tests.rpc.serving import Serving, output, pipeline_header, serving

PRODUCERS = 16
VALUE = b'"' + 65_000 * b"v" + b'"'
LIMIT = 1 << 19
"""Of a planner's messages, so that a megabyte is much."""


def _work(invocation_id: str, **inputs: Binding) -> StepSpec:
    return StepSpec(
        invocation_id=invocation_id,
        definition=DefinitionRef(module="training", name="work"),
        inputs=Inputs(bindings=inputs),
        options=StepOptions(),
    )


async def _produced(planner: Serving, worker: ScriptedWorker, consumers: int) -> str:
    """Start steps that all take what others have returned, a megabyte, and have these others end."""
    taken = Binding(list=BindingList(items=[output(number) for number in range(1, PRODUCERS + 1)]))
    specs = [_work(f"make_{number}") for number in range(PRODUCERS)]
    specs += [_work(f"take_{number}", values=taken) for number in range(consumers)]
    execution = await planner.start(pipeline_header(), specs)
    await worker.hello()
    worker.credit(steps=PRODUCERS)
    for task in await _tasks(worker, PRODUCERS):
        worker.complete(task, VALUE)
    return execution.id


async def _tasks(worker: ScriptedWorker, count: int) -> list[Task]:
    tasks: list[Task] = []
    while len(tasks) < count:
        tasks += (await worker.next("tasks")).tasks
    for task in tasks:
        worker.accept(task)
    return tasks


@pytest.mark.parametrize("consumers", [1, 40])
async def test_what_steps_take_reaches_them_however_much_it_is(database: str, tmp_path: Path, consumers: int) -> None:
    """One of them takes more than a planner lets others send to it, and all together more than that."""
    async with (
        serving(database, tmp_path, max_message_size=LIMIT) as planner,
        scripted_worker(planner.channel) as worker,
    ):
        execution = await _produced(planner, worker, consumers)
        worker.credit(steps=consumers)
        for task in await _tasks(worker, consumers):
            assert sum(len(one.outputs.outputs[0].payload.inline) for one in task.step.upstream) == 16 * len(VALUE)
            assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE
        assert (await planner.get(execution)).state == EXECUTION_STATE_COMPLETED
