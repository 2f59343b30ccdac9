"""Pipelines replayed with today's graph: SEMANTICS §5, its paragraph on pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dalsegno.errors import DivergenceError, UsageError
from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.value_pb2 import Binding, Inputs, OutputRef
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store.invocations import InvocationRow
from dalsegno_planner.store.replay_request import ReplayRequest, TodaysCode
from tests.store.graphs import (
    CHANGED,
    RECORDED,
    Database,
    Recorded,
    finish,
    own_rows,
    payload,
    plan,
    record,
    replay,
    tasks,
    value_of,
)

WAS = [Recorded("load"), Recorded("fit", takes=["load"]), Recorded("test", takes=["fit"])]


def graph(*steps: Recorded) -> list[InvocationRow]:
    """Today's steps, numbered from 1 in their own order."""
    numbers = {step.id: number for number, step in enumerate(steps, start=1)}
    return [_row(step, numbers) for step in steps]


def _row(step: Recorded, numbers: dict[str, int]) -> InvocationRow:
    bindings = {
        f"in_{one}": Binding(output=OutputRef(number=numbers[one], output=step.takes_outputs.get(one, "output")))
        for one in step.takes
    }
    bindings["k"] = Binding(value=payload(1))
    return InvocationRow(
        execution_id=None,  # type: ignore[arg-type]
        number=numbers[step.id],
        position=numbers[step.id],
        invocation_id=step.id,
        name=step.name or step.id,
        kind="step",
        state="pending",
        module="m",
        pinned_digest="",
        code_digest=step.code_digest,
        attempt=0,
        blocked_by=0,
        started_at=None,
        finished_at=None,
        upstream=sorted(numbers[one] for one in {*step.takes, *step.after}),
        after=[numbers[one] for one in step.after],
        reads_inputs=[],
        inputs=Inputs(bindings=bindings).SerializeToString(),
        outputs=None,
        failure=None,
        options=StepOptions(outputs=step.outputs if step.outputs != ("output",) else ()).SerializeToString(),
    )


def today(
    source: Execution, steps: Sequence[Recorded], skip: Sequence[str] | None = None, **more: Any
) -> ReplayRequest:
    if skip is not None:
        more |= {"mode": Mode.SKIP, "selectors": skip}
    result = Binding(output=OutputRef(number=len(steps), output="output")).SerializeToString()
    code = TodaysCode("m", "training", steps=graph(*steps), result=result)
    return ReplayRequest(str(source.id), code=code, **more)


async def differences(connection: Database, request: ReplayRequest) -> list[str]:
    with pytest.raises(DivergenceError) as refused:
        await plan(connection, request)
    assert refused.value.kind == "graph_changed"
    return [problem.description for problem in refused.value.problems]


async def test_the_same_graph_replays_as_recorded(connection: Database) -> None:
    source = await record(connection, WAS)
    found = await plan(connection, today(source, WAS, ["load"]))
    assert found.affected == ["fit", "test"]
    assert found.reused == {"load": str(call_id(source.id, 1))}


@pytest.mark.semantics("5", "New and changed steps among the re-executed ones are fine.")
async def test_new_steps_run_and_removed_ones_are_gone(connection: Database) -> None:
    source = await record(connection, WAS)
    now = [
        Recorded("load"),
        Recorded("scale", takes=["load"]),
        Recorded("fit", takes=["scale"]),
        Recorded("plot", takes=["fit"]),
    ]
    request = today(source, now, ["load"])
    found = await plan(connection, request)
    assert found.affected == ["fit", "scale", "plot"]
    assert found.roots["scale"] == {"new_step", "not_skipped"}
    assert found.counts == (3, 3, 1)
    made = await replay(connection, request)
    rows = await own_rows(connection, made)
    numbers = {one: row["number"] for one, row in rows.items()}
    assert numbers == {"fit": 2, "test": 3, "scale": 4, "plot": 5}
    assert (rows["fit"]["upstream"], rows["fit"]["blocked_by"]) == ([4], 1)
    assert rows["test"]["state"] == "not_reached"
    assert await tasks(connection, made) == {4: "default/m:scale"}
    assert made.result_binding is not None
    assert Binding.FromString(made.result_binding).output.number == 5
    await finish(connection, made)
    again = await plan(connection, ReplayRequest(str(made.id)))
    assert again.affected == ["load", "fit", "scale", "plot"], "what was removed is not replayed again"
    assert made.invocation_count == 4


@pytest.mark.semantics(
    "5",
    "a reused step must still exist with the same name, outputs and upstream",
    "all differences listed, before anything is created",
)
async def test_every_difference_of_what_is_reused_is_told(connection: Database) -> None:
    source = await record(connection, [*WAS, Recorded("a"), Recorded("b", after=["a"]), Recorded("gone")])
    now = [
        Recorded("load", "read"),
        Recorded("fit", takes=["load"], outputs=("model",)),
        Recorded("test", takes=["load"]),
        Recorded("a"),
        Recorded("b"),
    ]
    request = today(source, now, ["load", "fit", "test", "a", "b", "gone"])
    assert await differences(connection, request) == [
        "load is reused, and was step 'load' where it is 'read' now",
        "fit is reused, and had the outputs output where it has model now",
        "test is reused, and took fit.output where it takes load.output now",
        "b is reused, and came after a where it comes after nothing now",
        "gone is reused, and exists no more",
    ]
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


@pytest.mark.semantics("5", "New and changed steps among the re-executed ones are fine.")
async def test_changes_among_what_re_executes_are_fine(connection: Database) -> None:
    source = await record(connection, WAS)
    now = [Recorded("load"), Recorded("fit", takes=["load"], outputs=("model",)), Recorded("test", after=["fit"])]
    assert (await plan(connection, today(source, now, ["load"]))).affected == ["fit", "test"]


async def test_skipping_what_was_successful_re_executes_what_is_downstream_of_a_new_step(connection: Database) -> None:
    source = await record(connection, WAS)
    now = [*WAS, Recorded("plot", takes=["test"])]
    found = await plan(connection, today(source, now, mode=Mode.SKIP_SUCCESSFUL))
    assert found.affected == ["plot"]
    assert found.roots == {"plot": {"new_step"}}


async def test_changed_code_is_seen_in_today_s_graph(connection: Database) -> None:
    source = await record(connection, WAS)
    now = [Recorded("load"), Recorded("fit", takes=["load"], code_digest=CHANGED), Recorded("test", takes=["fit"])]
    found = await plan(connection, today(source, now, mode=Mode.SKIP_SUCCESSFUL, rerun_changed_code=True))
    assert found.roots == {"fit": {"code_changed"}}
    made = await replay(connection, today(source, now, mode=Mode.SKIP_SUCCESSFUL, rerun_changed_code=True))
    assert (await own_rows(connection, made))["fit"]["code_digest"] == CHANGED


async def test_what_is_skipped_cannot_come_after_a_new_step(connection: Database) -> None:
    source = await record(connection, WAS)
    now = [Recorded("load"), Recorded("scale"), Recorded("fit", takes=["scale"]), Recorded("test", takes=["fit"])]
    assert await differences(connection, today(source, now, ["load", "fit"])) == [
        "fit is reused, and took load.output where it takes scale.output now"
    ]
    assert (await plan(connection, today(source, now, ["load"]))).affected == ["fit", "test", "scale"]


async def test_a_new_step_cannot_be_skipped(connection: Database) -> None:
    source = await record(connection, WAS)
    with pytest.raises(UsageError) as refused:
        await plan(connection, today(source, [*WAS, Recorded("plot")], ["plot"]))
    assert "it is new and has never run" in str(refused.value)


async def test_inputs_of_new_and_of_recorded_steps_can_be_overridden(connection: Database) -> None:
    source = await record(connection, WAS)
    now = [*WAS, Recorded("plot", takes=["test"])]
    values = {"plot": {"k": payload(7)}, "fit": {"in_load": payload("X")}}
    made = await replay(connection, today(source, now, ["load"], step_input_overrides=values))
    rows = await own_rows(connection, made)
    assert value_of(Inputs.FromString(rows["plot"]["inputs"]).bindings["k"].value) == 7
    assert (rows["fit"]["upstream"], rows["fit"]["overridden_inputs"]) == ([], ["in_load"])
    await finish(connection, made)
    again = await replay(connection, today(made, now, ["load"]))
    row = (await own_rows(connection, again))["fit"]
    assert value_of(Inputs.FromString(row["inputs"]).bindings["in_load"].value) == "X", "it is part of what is replayed"
    assert row["overridden_inputs"] == ["in_load"]


async def test_an_overridden_output_reaches_today_s_consumers(connection: Database) -> None:
    source = await record(connection, WAS)
    made = await replay(
        connection, today(source, WAS, mode=Mode.FROM, selectors=["test"], overrides={"checkpoint.load": payload(1)})
    )
    rows = await own_rows(connection, made)
    assert {one: row["state"] for one, row in rows.items()} == {"load": "reused", "fit": "pending", "test": "pending"}
    assert rows["fit"]["code_digest"] == RECORDED


async def test_an_input_that_an_earlier_replay_overrode_is_no_change_of_the_graph(connection: Database) -> None:
    source = await record(connection, WAS)
    values = {"fit": {"in_load": payload("X")}}
    made = await replay(connection, today(source, WAS, ["load"], step_input_overrides=values))
    await finish(connection, made)
    again = await plan(connection, today(made, WAS, ["load", "fit"]))
    assert again.affected == ["test"]
    from_load = await plan(connection, today(made, WAS, mode=Mode.FROM, selectors=["load"]))
    assert from_load.affected == ["load"], "fit takes nothing of it any more"
