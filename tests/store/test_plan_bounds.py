"""Plans of much: what they look for in part, they say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dalsegno.v1.definition_pb2 import Definition
from dalsegno.v1.value_pb2 import Binding, Inputs, Output, Outputs, Payload
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.plan import Mode, OnStale
from dalsegno_planner.store.replay_marks import FEW
from dalsegno_planner.store.replay_needs import NeededObject
from dalsegno_planner.store.replay_plan import make_plan
from dalsegno_planner.store.replay_request import ReplayRequest
from tests.store.graphs import CHANGED, MODULE, PROJECT, RECORDED, Database, Recorded, payload, plan, record


def asking(source: Execution, *selectors: str) -> ReplayRequest:
    return ReplayRequest(execution=str(source.id), mode=Mode.FROM, selectors=selectors)


def stored(number: int) -> Payload:
    digits = f"{number:064x}"
    return Payload(codec="json", digest=b"d" * 32, size=100_000, object_key=f"blobs/{digits[:2]}/{digits[2:]}")


def as_output(number: int) -> bytes:
    return Outputs(outputs=[Output(name="output", payload=stored(number))]).SerializeToString()


def as_input(number: int) -> bytes:
    return Inputs(bindings={"k": Binding(value=stored(number))}).SerializeToString()


async def write(connection: Database, source: Execution, column: str, values: dict[int, bytes]) -> None:
    await connection.executemany(
        f"UPDATE invocations SET {column} = $3 WHERE execution_id = $1 AND number = $2",
        [(source.id, number, value) for number, value in values.items()],
    )


async def planned(connection: Database, request: ReplayRequest) -> tuple[Sequence[NeededObject], tuple[str, ...]]:
    async with connection.transaction():
        made = await make_plan(connection, request)
        return made.objects, made.summary.warnings


@pytest.mark.parametrize("consumers", [1, 2_500], ids=["few", "many"])
@pytest.mark.semantics("3", "Warnings, never silence")
async def test_a_plan_says_which_outputs_it_does_not_look_for(connection: Database, consumers: int) -> None:
    parts = [Recorded(f"part_{number}", "part") for number in range(1, 1_003)]
    whole = Recorded("whole", takes=[one.id for one in parts])
    others = [Recorded(f"more_{number}", "more", takes=["whole"]) for number in range(1, consumers)]
    source = await record(connection, [*parts, whole, *others])
    await write(connection, source, "outputs", {number: as_output(number) for number in range(1, 1_001)})
    objects, warnings = await planned(connection, asking(source, "whole"))
    assert len({one.key for one in objects}) == 1_000
    assert not warnings
    await write(connection, source, "outputs", {number: as_output(number) for number in (1_001, 1_002)})
    objects, warnings = await planned(connection, asking(source, "whole"))
    assert len({one.key for one in objects}) == 1_000
    assert warnings == (
        "values of 2 more steps were not looked for in the object store; where one is gone, what reads it fails",
    )


async def test_an_object_that_many_steps_have_is_one(connection: Database) -> None:
    parts = [Recorded(f"part_{number}", "part") for number in range(1, 1_003)]
    source = await record(connection, [*parts, Recorded("whole", takes=[one.id for one in parts])])
    await write(connection, source, "outputs", {number: as_output(1) for number in range(1, 1_003)})
    objects, warnings = await planned(connection, asking(source, "whole"))
    assert len({one.key for one in objects}) == 1
    assert not warnings


async def test_recorded_inputs_are_looked_for_however_much_runs_again(connection: Database) -> None:
    source = await record(connection, [Recorded(f"a_{number}", "a") for number in range(1, 10_002)])
    await write(connection, source, "inputs", {10_001: as_input(7)})
    objects, warnings = await planned(connection, asking(source, "all:a"))
    assert [one.problem.field for one in objects] == ['step_input_overrides["a_10001"]["k"]']
    assert not warnings
    await write(connection, source, "inputs", {number: as_input(number) for number in range(1, 1_004)})
    objects, warnings = await planned(connection, asking(source, "all:a"))
    assert len(objects) == 1_000
    assert [one.partition(" more")[0] for one in warnings] == ["values of 4"]


@pytest.mark.parametrize("few", [FEW, 0], ids=["few", "many"])
@pytest.mark.semantics("3", "a reused step whose code changed")
async def test_every_reused_call_is_compared_with_todays_code(connection: Database, few: int) -> None:
    calls = [Recorded(f"a_{number}", "a") for number in range(1, 1_503)]
    calls[1_500] = Recorded("a_1501", "a", code_digest=CHANGED)
    source = await record(connection, [*calls, Recorded("last")])
    known = Definition(module=MODULE, name="a", digest=RECORDED).SerializeToString()
    await connection.execute(
        "INSERT INTO definitions VALUES ($1, 'step', $2, 'a', $3, $4)", PROJECT, MODULE, RECORDED, known
    )
    told = "a_1501: reused, though the code of the step has changed since"
    assert (await plan(connection, asking(source, "last"), 10_000, few)).warnings == (told,)
    assert not (await plan(connection, asking(source, "last", "a_1501"), 10_000, few)).warnings


@pytest.mark.parametrize(
    ("on_stale", "warning"),
    [
        (OnStale.REUSE, "reused, though it reads a flow input that is overridden"),
        (OnStale.RERUN, "reads a flow input that is overridden, and re-executes where that changes what it is given"),
        (
            OnStale.FAIL,
            "reads a flow input that is overridden, and the replay fails where that changes what it is given",
        ),
    ],
)
async def test_what_a_flow_s_body_may_find_stale_is_named(
    connection: Database, on_stale: OnStale, warning: str
) -> None:
    steps = [Recorded("load"), Recorded("fit", takes=["load"], reads=["lr"]), Recorded("report")]
    source = await record(connection, steps, kind="flow", inputs={"lr": 0.5})
    request = ReplayRequest(
        execution=str(source.id), mode=Mode.FROM, selectors=("report",), inputs={"lr": payload(1)}, on_stale=on_stale
    )
    assert (await plan(connection, request)).warnings == (f"fit: {warning}",)
