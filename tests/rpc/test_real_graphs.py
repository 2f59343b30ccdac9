"""Replays of real runs, as a client meets them: imported, planned page by page, and created."""

from __future__ import annotations

import random
from collections.abc import Iterable
from uuid import UUID

import grpc
import pytest
from grpc import aio

from dalsegno.v1 import execution_pb2 as states
from dalsegno.v1 import replay_service_pb2 as messages
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_PIPELINE, DEFINITION_KIND_STEP, Definition, DefinitionRef
from dalsegno.v1.execution_service_pb2 import ExecutionServiceImportRequest, ImportedStep, ImportedSteps, ImportHeader
from dalsegno.v1.replay_service_pb2 import InputOverrides, ReplaySpec, SelectorList
from dalsegno.v1.value_pb2 import Binding, Output, Outputs
from dalsegno_planner.core.ids import ExecutionId, call_id
from dalsegno_planner.store.pool import Connection
from tests.rpc.serving import Serving, json_payload, json_value, output, plain, step
from tests.unit.plan_oracle import Expected, Request, Step, expected_plan
from tests.unit.real_graphs import MODES, NAMES, real_request, real_steps, with_a_past

_MODULE = "training"
_TODAY, _LONG_AGO = "1" * 64, "0" * 64


async def imported(planner: Serving, steps: list[Step]) -> str:
    """Import a run, and let today's code be known."""
    names = sorted({one.name for one in steps})
    header = ImportHeader(
        definition=DefinitionRef(module=_MODULE, name="real"),
        kind=DEFINITION_KIND_PIPELINE,
        inputs={"lr": json_value(1)},
        definitions=[Definition(kind=DEFINITION_KIND_STEP, module=_MODULE, name=name, digest=_TODAY) for name in names],
    )
    requests = [ExecutionServiceImportRequest(header=header)]
    requests += [ExecutionServiceImportRequest(steps=ImportedSteps(steps=_imported(steps)))]
    return (await planner.executions.Import(iter(requests))).execution.id


def _imported(steps: list[Step]) -> Iterable[ImportedStep]:
    numbers = {one.id: number for number, one in enumerate(steps, start=1)}
    failed = {one.id for one in steps if not one.succeeded}
    for one in steps:
        bindings = {f"in_{place}": output(numbers[up]) for place, up in enumerate(sorted(one.takes))}
        bindings |= {f"p_{name}": Binding(flow_input=name) for name in one.reads}
        spec = step(one.id, after=sorted(numbers[up] for up in one.after), k=plain(1))
        for name, binding in bindings.items():
            spec.inputs.bindings[name].CopyFrom(binding)
        spec.definition.name = one.name
        spec.code_digest = _LONG_AGO if one.changed else _TODAY
        if one.succeeded:
            yield ImportedStep(
                step=spec, outputs=Outputs(outputs=[Output(name="output", payload=json_payload(one.id))])
            )
        elif failed.isdisjoint(one.takes | one.after):
            yield ImportedStep(step=spec, state=states.INVOCATION_STATE_FAILED)
        else:
            yield ImportedStep(step=spec, state=states.INVOCATION_STATE_NOT_REACHED)


def spec_of(source: str, request: Request) -> ReplaySpec:
    spec = ReplaySpec(
        execution=source,
        rerun_changed_code=request.rerun_changed_code,
        inputs={name: json_value(2) for name in request.inputs},
        overrides={f"checkpoint.invocation:{one}": json_value("X") for one in request.overridden},
        step_input_overrides={one: InputOverrides(inputs={"k": json_value(2)}) for one in request.step_inputs},
    )
    match request.mode:
        case "from":
            named = SelectorList(selectors=[f"invocation:{one}" for one in sorted(request.chosen)])
            getattr(spec, "from").CopyFrom(named)
        case "skip":
            spec.skip.CopyFrom(SelectorList(selectors=sorted(request.skipped)))
        case "skip_successful":
            spec.skip_successful = True
        case "everything":
            spec.everything = True
    return spec


async def planned(planner: Serving, source: str, steps: list[Step], request: Request) -> Expected:
    """Ask for a plan, and read every page of it."""
    asked = messages.ReplayServicePlanRequest(spec=spec_of(source, request), page_size=500)
    try:
        roots = await entries(planner, asked, messages.PLAN_VIEW_ROOTS)
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return Expected(refused=True)
    affected = await entries(planner, asked, messages.PLAN_VIEW_AFFECTED)
    reused = await entries(planner, asked, messages.PLAN_VIEW_REUSED)
    affected_ids = {one.invocation_id for one in affected}
    calls = {one.id: str(call_id(ExecutionId(UUID(source)), number)) for number, one in enumerate(steps, start=1)}
    assert {one.invocation_id: one.call_id for one in reused} == {
        one: call for one, call in calls.items() if one not in affected_ids
    }
    reasons = {
        one.invocation_id: {messages.RootReason.Name(why.reason)[len("ROOT_REASON_") :].lower() for why in one.reasons}
        for one in roots
    }
    return Expected(reasons, affected_ids)


async def entries(
    planner: Serving, asked: messages.ReplayServicePlanRequest, view: messages.PlanView.ValueType
) -> list[messages.PlanEntry]:
    asked.view, asked.page_token = view, ""
    found: list[messages.PlanEntry] = []
    while True:
        page = await planner.replays.Plan(asked)
        found += page.entries
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            return found


@pytest.mark.semantics("3", "Every root in the plan carries its reasons; every reused invocation carries the call ID")
@pytest.mark.parametrize("name", NAMES)
async def test_replays_of_real_graphs_are_those_of_the_oracle(
    planner: Serving, connection: Connection, name: str
) -> None:
    """Planned in every mode; and what is created is what is affected, what is overridden, and no more."""
    chance = random.Random(name)
    steps = with_a_past(real_steps(name), chance)
    source = await imported(planner, steps)
    for mode in MODES * (2 if len(steps) < 1000 else 1):
        request = real_request(steps, mode, chance)
        expected = expected_plan(steps, request)
        assert await planned(planner, source, steps, request) == expected, request
        if expected.refused:
            continue
        made = await planner.replays.Create(messages.ReplayServiceCreateRequest(spec=spec_of(source, request)))
        rows = await connection.fetch("SELECT * FROM invocations WHERE execution_id = $1", made.execution.id)
        stale = {one.id for one in steps if one.reads & request.inputs and one.id not in expected.affected}
        assert {row["invocation_id"] for row in rows} == expected.affected | request.overridden | stale
        assert {row["invocation_id"] for row in rows if row["state"] == "pending"} == expected.affected
        for table, count in (("edges", sum(len(row["upstream"]) for row in rows)), ("lineage", 2)):
            found = await connection.fetchval(
                f"SELECT count(*) FROM {table} WHERE execution_id = $1", made.execution.id
            )
            assert found == count, table
