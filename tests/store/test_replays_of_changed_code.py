"""Replays where today's code is not what was recorded."""

from __future__ import annotations

import pytest

from dalsegno.errors import DivergenceError
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_FLOW, DEFINITION_KIND_STEP, Definition
from dalsegno_planner.core.plan import OnStale
from dalsegno_planner.store.replay_request import TodaysCode
from tests.store.graphs import (
    CHANGED,
    MODULE,
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
)
from tests.store.replay_requests import asking, chain, define, from_, state_problems, usage_problems


async def test_changed_code_is_a_root_and_a_missing_digest_counts_as_changed(connection: Database) -> None:
    steps = [Recorded("a"), Recorded("b", takes=["a"], code_digest=CHANGED), Recorded("c", code_digest="")]
    source = await record(connection, steps)
    for name in "abc":
        await define(connection, "step", name, {})
    found = await plan(connection, asking(source, rerun_changed_code=True))
    assert found.roots == {"b": {"code_changed"}, "c": {"code_changed"}}


async def test_a_reused_step_whose_code_changed_is_warned_about(connection: Database) -> None:
    source = await record(connection, [Recorded("a"), Recorded("b", takes=["a"])])
    await define(connection, "step", "a", {}, CHANGED)
    found = await plan(connection, from_(source, "b"))
    assert found.warnings == ("a: reused, though the code of the step has changed since",)


async def test_each_reused_call_whose_code_changed_is_warned_about(connection: Database) -> None:
    steps = [Recorded(f"a_{one}", "a", code_digest=CHANGED if one > 3 else RECORDED) for one in range(1, 7)]
    source = await record(connection, steps)
    await define(connection, "step", "a", {})
    chosen = [f"invocation:a_{one}" for one in (1, 2, 5)]
    found = await plan(connection, from_(source, *chosen))
    assert found.warnings == ("a_4, a_6: reused, though the code of the step has changed since",)
    made = await replay(connection, from_(source, *chosen))
    await finish(connection, made)
    again = await plan(connection, from_(made, "invocation:a_1"))
    assert again.warnings == found.warnings, "a_5 ran with today's code, and what it had before is of no interest"


async def test_a_reused_step_that_reads_an_overridden_input_is_warned_about_and_marked(connection: Database) -> None:
    source = await chain(connection)
    request = from_(source, "test", inputs={"lr": payload(1)})
    assert (await plan(connection, request)).warnings == (
        "fit: reused, though it reads a flow input that is overridden",
    )
    made = await replay(connection, request)
    rows = await own_rows(connection, made)
    assert {one for one, row in rows.items() if row["stale_inputs"]} == {"fit"}


async def test_stale_inputs_can_re_execute_or_be_refused_in_a_pipeline(connection: Database) -> None:
    source = await chain(connection)
    request = from_(source, "report", inputs={"lr": payload(1)}, on_stale=OnStale.RERUN)
    assert (await plan(connection, request)).roots == {"fit": {"flow_input_override"}, "report": {"from"}}
    request = from_(source, "report", inputs={"lr": payload(1)}, on_stale=OnStale.FAIL)
    assert "fit is reused and reads an overridden input" in await state_problems(connection, request)


async def test_today_s_definitions_pin_what_re_executes(connection: Database) -> None:
    source = await chain(connection)
    fit = Definition(kind=DEFINITION_KIND_STEP, module=MODULE, name="fit", digest=CHANGED)
    code = TodaysCode(MODULE, "training", pinned_digest=CHANGED, definitions=[fit])
    made = await replay(connection, from_(source, "fit", code=code))
    assert await tasks(connection, made) == {2: f"default/m:fit@{CHANGED}"}
    assert (await own_rows(connection, made))["test"]["pinned_digest"] == ""


async def test_changed_arguments_of_a_flow_are_a_changed_graph(connection: Database) -> None:
    source = await chain(connection, kind="flow")
    today = Definition(
        kind=DEFINITION_KIND_FLOW,
        module=MODULE,
        name="training",
        input_schemas={"lr": "", "depth": ""},
        required_inputs=["depth"],
    )
    code = TodaysCode(MODULE, "training", definitions=[today])
    with pytest.raises(DivergenceError) as refused:
        await plan(connection, from_(source, "fit", code=code))
    told = "\n".join(map(str, refused.value.problems))
    assert (refused.value.kind, refused.value.reason) == ("graph_changed", "GRAPH_CHANGED")
    assert "'path' was recorded and exists no more" in told
    assert "'depth' is required and was not recorded" in told


async def test_code_of_another_flow_is_refused(connection: Database) -> None:
    source = await chain(connection)
    code = TodaysCode(MODULE, "evaluation")
    assert "is a run of 'training'" in await usage_problems(connection, asking(source, code=code))
