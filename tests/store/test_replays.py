"""Replays as they are planned, refused and written: SEMANTICS §2 to §4, sentence by sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from uuid import UUID, uuid4

import asyncpg
import pytest

from dalsegno.errors import DivergenceError, NotFoundError, StateError, UsageError
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_FLOW, DEFINITION_KIND_STEP, Definition
from dalsegno.v1.value_pb2 import FlowInputs, Inputs, Outputs
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.ids import artifact_id, call_id
from dalsegno_planner.core.plan import Mode, OnStale
from dalsegno_planner.store import artifacts, invocations
from dalsegno_planner.store.replay_plan import make_plan
from dalsegno_planner.store.replay_request import Creation, Given, ReplayRequest, TodaysCode
from dalsegno_planner.store.replays import DEEPEST_LINEAGE, create_replay
from tests.store.graphs import (
    CHANGED,
    MODULE,
    PROJECT,
    RECORDED,
    Database,
    Recorded,
    connect,
    finish,
    own_rows,
    payload,
    plan,
    record,
    replay,
    tasks,
    value_of,
)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Database]:
    opened = await connect(database)
    yield opened
    await opened.close()


CHAIN = [
    Recorded("load", reads=["path"]),
    Recorded("fit", takes=["load"], reads=["lr"]),
    Recorded("test", takes=["fit"]),
    Recorded("report", after=["test"]),
]
INPUTS: Mapping[str, object] = {"path": "data", "lr": 0.1}


async def chain(connection: Database, **options: object) -> Execution:
    return await record(connection, CHAIN, inputs=dict(INPUTS), **options)  # type: ignore[arg-type]


def from_(source: Execution, *selectors: str, **more: object) -> ReplayRequest:
    return ReplayRequest(str(source.id), mode=Mode.FROM, selectors=selectors, **more)  # type: ignore[arg-type]


def asking(source: Execution, **more: object) -> ReplayRequest:
    return ReplayRequest(str(source.id), **more)  # type: ignore[arg-type]


def skipping(source: Execution, *ids: str, **more: object) -> ReplayRequest:
    return ReplayRequest(str(source.id), mode=Mode.SKIP, selectors=ids, **more)  # type: ignore[arg-type]


async def usage_problems(connection: Database, request: ReplayRequest) -> str:
    with pytest.raises(UsageError) as refused:
        await plan(connection, request)
    return "\n".join(map(str, refused.value.problems))


async def state_problems(connection: Database, request: ReplayRequest) -> str:
    with pytest.raises(StateError) as refused:
        await plan(connection, request)
    return "\n".join(map(str, refused.value.problems))


# --- what a plan says


async def test_a_plan_has_roots_affected_and_reused_with_their_call_ids(connection: Database) -> None:
    source = await chain(connection)
    found = await plan(connection, from_(source, "fit"))
    assert found.roots == {"fit": {"from"}}
    assert found.affected == ["fit", "test", "report"]
    assert found.reused == {"load": str(call_id(source.id, 1))}


async def test_an_order_edge_carries_no_output_but_affects(connection: Database) -> None:
    source = await chain(connection)
    assert (await plan(connection, from_(source, "test"))).affected == ["test", "report"]


async def test_equal_plans_have_equal_digests_and_others_have_others(connection: Database) -> None:
    source = await chain(connection)
    digests = [
        (await plan(connection, request)).digest
        for request in (
            from_(source, "fit"),
            from_(source, "invocation:fit"),
            from_(source, "test"),
            from_(source, "fit", inputs={"lr": payload(1)}),
            from_(source, "fit", inputs={"lr": payload(2)}),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


async def test_a_preview_creates_nothing(connection: Database) -> None:
    source = await chain(connection)
    await plan(connection, from_(source, "fit"))
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1
    assert await connection.fetchval("SELECT count(*) FROM artifacts") == 0


async def test_several_selectors_name_several_roots(connection: Database) -> None:
    source = await chain(connection)
    found = await plan(connection, from_(source, "fit", f"call:{call_id(source.id, 4)}"))
    assert found.roots == {"fit": {"from"}, "report": {"from"}}


async def test_all_names_every_call_of_a_step(connection: Database) -> None:
    source = await record(connection, [Recorded("work"), Recorded("work_2", "work"), Recorded("other")])
    found = await plan(connection, from_(source, "all:work"))
    assert found.roots == {"work": {"from"}, "work_2": {"from"}}


# --- what is refused


async def test_an_ambiguous_selector_lists_every_candidate(connection: Database) -> None:
    source = await record(connection, [Recorded("work"), Recorded("work_2", "work")])
    told = await state_problems(connection, from_(source, "work"))
    for number, one in ((1, "work"), (2, "work_2")):
        assert f"invocation:{one}" in told
        assert str(call_id(source.id, number)) in told


async def test_a_selector_without_a_match_names_the_closest(connection: Database) -> None:
    source = await chain(connection)
    assert "did you mean 'fit'" in await state_problems(connection, from_(source, "fitt"))


async def test_all_problems_of_a_request_come_in_one_error(connection: Database) -> None:
    source = await chain(connection)
    told = await usage_problems(
        connection,
        from_(
            source,
            "fitt",
            " ",
            inputs={"lrr": payload(1)},
            overrides={"load": payload(1), "wait.x": payload(2), "checkpoint.": payload(3), "checkpoint.fit": uuid4()},
            step_input_overrides={"fi": {"k": payload(1)}, "fit": {"kk": payload(1)}},
        ),
    )
    for part in (
        "no step name, invocation ID or call ID of the execution is 'fitt'",
        "names nothing",
        "did you mean 'lr'?",
        "write 'checkpoint.load'",
        "waits cannot be overridden",
        "selector is missing",
        "no artifact has the ID",
        "did you mean 'fit'?",
        "fit has no input 'kk'; did you mean 'k'?",
    ):
        assert part in told
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


@pytest.mark.parametrize("state", ["pending", "running"])
async def test_an_unfinished_source_is_refused(connection: Database, state: str) -> None:
    source = await chain(connection, state=state)
    assert f"is {state}" in await state_problems(connection, asking(source))


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "waiting"])
async def test_any_other_source_can_be_replayed(connection: Database, state: str) -> None:
    source = await chain(connection, state=state)
    assert (await plan(connection, asking(source))).affected == [step.id for step in CHAIN]


async def test_a_step_is_skipped_only_with_its_upstream_and_if_it_succeeded(connection: Database) -> None:
    steps = [Recorded("a"), Recorded("b", takes=["a"]), Recorded("c", state="failed")]
    source = await record(connection, steps, state="failed")
    told = await usage_problems(connection, skipping(source, "b", "c", "d"))
    assert "b cannot be skipped: it comes after a, which is not skipped" in told
    assert "c cannot be skipped: it did not succeed" in told
    assert "no invocation ID of the execution is 'd'" in told


async def test_an_empty_skip_is_a_mode(connection: Database) -> None:
    source = await chain(connection)
    found = await plan(connection, skipping(source))
    assert found.roots == {step.id: {"not_skipped"} for step in CHAIN}


async def test_an_override_that_makes_a_root_of_what_is_skipped_is_refused(connection: Database) -> None:
    source = await chain(connection)
    request = skipping(source, "load", "fit", overrides={"checkpoint.load": payload(1)})
    assert "'checkpoint.load' overrides" in await usage_problems(connection, request)
    request = skipping(source, "load", step_input_overrides={"load": {"k": payload(1)}})
    assert "one of its inputs is overridden" in await usage_problems(connection, request)


async def test_an_overridden_checkpoint_has_one_output(connection: Database) -> None:
    declared = Recorded("split", outputs=("train", "test"))
    bound = Recorded("load", outputs=())
    consumers = [
        Recorded("fit", takes=["split"], takes_outputs={"split": "train"}),
        Recorded("x", takes=["load"], takes_outputs={"load": "rows"}),
        Recorded("y", takes=["load"], takes_outputs={"load": "names"}),
    ]
    source = await record(connection, [declared, bound, *consumers])
    overrides = {"checkpoint.split": payload(1), "checkpoint.load": payload(2)}
    told = await usage_problems(connection, asking(source, overrides=overrides))
    assert "split has several outputs (test, train)" in told
    assert "load has several outputs (names, rows)" in told


async def test_an_override_takes_the_name_of_the_output_that_it_replaces(connection: Database) -> None:
    steps = [Recorded("load", outputs=("rows",)), Recorded("fit", takes=["load"], takes_outputs={"load": "rows"})]
    source = await record(connection, steps)
    made = await replay(connection, asking(source, overrides={"checkpoint.load": payload([1])}))
    rows = await own_rows(connection, made)
    assert [one.name for one in Outputs.FromString(rows["load"]["override_outputs"]).outputs] == ["rows"]


async def test_overriding_what_nobody_takes_is_refused_except_in_a_flow(connection: Database) -> None:
    request_of = {"overrides": {"checkpoint.test": payload(1)}}
    source = await chain(connection)
    assert "no invocation takes the output of test" in await state_problems(connection, asking(source, **request_of))
    source = await chain(connection, kind="flow")
    assert (await plan(connection, asking(source, **request_of))).affected == []


async def test_a_missing_artifact_is_not_found(connection: Database) -> None:
    source = await chain(connection)
    with pytest.raises(NotFoundError):
        await plan(connection, asking(source, overrides={"checkpoint.load": uuid4()}))


async def test_an_output_that_is_gone_is_an_error_only_where_it_is_needed(connection: Database) -> None:
    source = await record(connection, [Recorded("a", outputs=()), Recorded("b", takes=["a"]), Recorded("c")])
    assert "b takes the output of a" in await state_problems(connection, from_(source, "b"))
    assert (await plan(connection, from_(source, "c"))).affected == ["c"]
    assert (await plan(connection, from_(source, "a"))).affected == ["a", "b"]
    overridden = asking(source, overrides={"checkpoint.a": payload(1)})
    assert (await plan(connection, overridden)).affected == ["b"]


async def test_an_output_that_is_gone_is_seen_in_a_large_graph_too(connection: Database) -> None:
    others = [Recorded(f"other_{number}", "other") for number in range(20)]
    source = await record(
        connection, [*others, Recorded("a", outputs=()), Recorded("b", takes=["a"]), Recorded("c", after=["a"])]
    )
    assert "b takes the output of a" in await state_problems(connection, from_(source, "b"))
    assert (await plan(connection, from_(source, "c"))).affected == ["c"]


# --- types


async def define(
    connection: Database,
    kind: str,
    name: str,
    schemas: Mapping[str, str],
    digest: str = RECORDED,
    outputs: Mapping[str, str] | None = None,
) -> None:
    document = Definition(module=MODULE, name=name, digest=digest, input_schemas=schemas, output_schemas=outputs or {})
    await connection.execute(
        "INSERT INTO definitions VALUES ($1, $2, $3, $4, $5, $6)",
        PROJECT,
        kind,
        MODULE,
        name,
        digest,
        document.SerializeToString(),
    )


async def test_values_are_checked_against_the_recorded_types_with_the_path(connection: Database) -> None:
    source = await chain(connection)
    number = '{"type": "number"}'
    await define(connection, "pipeline", "training", {"lr": number, "path": ""})
    rows = '{"type": "array", "items": {"type": "integer"}}'
    await define(connection, "step", "fit", {"in_load": rows, "k": number, "depth": ""})
    values: dict[str, Mapping[str, Given]] = {"fit": {"k": payload("x"), "depth": payload("anything")}}
    request = asking(
        source,
        inputs={"lr": payload("high"), "path": payload(1)},
        overrides={"checkpoint.load": payload([1, "two"])},
        step_input_overrides=values,
    )
    told = await usage_problems(connection, request)
    assert "inputs[\"lr\"]: 'high' is not of type 'number'" in told
    assert "overrides[\"checkpoint.load\"][1]: 'two' is not of type 'integer'" in told
    assert 'step_input_overrides["fit"]["k"]' in told
    assert told.count("\n") == 2


# --- what is written


async def test_a_replay_writes_its_affected_rows_and_no_more(connection: Database) -> None:
    source = await chain(connection)
    made = await replay(connection, from_(source, "test"), Creation(name="again", requested_by="ada"))
    rows = await own_rows(connection, made)
    assert sorted(rows) == ["report", "test"]
    assert (rows["test"]["state"], rows["test"]["blocked_by"], rows["report"]["blocked_by"]) == ("pending", 0, 1)
    assert await tasks(connection, made) == {3: "default/m:test"}
    assert (made.name, made.source_id, made.requested_by, made.invocation_count) == ("again", source.id, "ada", 4)
    assert made.replay is not None
    assert (made.replay["mode"], made.replay["roots"]) == ("from", [3])
    events = await connection.fetch("SELECT event, number, state FROM events WHERE execution_id = $1", made.id)
    assert [tuple(event) for event in events] == [(1, 0, "pending")]


async def test_reused_invocations_are_read_through_the_lineage(connection: Database) -> None:
    source = await chain(connection)
    made = await replay(connection, from_(source, "test"))
    shown, _ = await invocations.list_page(connection, made.id, made.kind, 0, 10)
    assert [(one.invocation_id, str(one.state)) for one in shown] == [
        ("load", "reused"),
        ("fit", "reused"),
        ("test", "ready"),
        ("report", "pending"),
    ]
    assert shown[0].call_id == call_id(source.id, 1)


async def test_a_pipeline_with_nothing_to_do_has_completed_at_once(connection: Database) -> None:
    source = await chain(connection)
    made = await replay(connection, asking(source, mode=Mode.SKIP_SUCCESSFUL))
    assert made.state == "completed"
    assert await tasks(connection, made) == {}


async def test_inputs_are_carried_as_recorded_and_replaced_one_by_one(connection: Database) -> None:
    source = await chain(connection)
    first = await replay(connection, asking(source, inputs={"lr": payload(0.5)}))
    await finish(connection, first)
    second = await replay(connection, from_(first, "fit"))
    for made in (first, second):
        inputs = FlowInputs.FromString(made.inputs).values
        assert {name: value_of(value) for name, value in inputs.items()} == {"lr": 0.5, "path": "data"}
    assert first.replay is not None
    assert first.replay["inputs"] == ["lr"]


async def test_flow_inputs_alone_re_execute_everything(connection: Database) -> None:
    source = await chain(connection)
    found = await plan(connection, asking(source, inputs={"lr": payload(0.5)}))
    assert found.roots == {step.id: {"everything"} for step in CHAIN}


async def test_an_overridden_output_is_a_delta_and_becomes_an_artifact_once(connection: Database) -> None:
    source = await chain(connection)
    made = await replay(
        connection, asking(source, overrides={"checkpoint.load": payload([7])}), Creation(requested_by="ada")
    )
    row = (await own_rows(connection, made))["load"]
    assert (row["state"], row["supplier_id"]) == ("reused", source.id)
    assert row["outputs"] is not None, "the recorded output stays beside the override"
    found = await artifacts.find(connection, artifact_id(made.id, 1, 0))
    assert found.payload == payload([7]).SerializeToString()
    stored = await connection.fetch("SELECT id, created_by FROM artifacts")
    assert [tuple(one) for one in stored] == [(UUID(made.replay["overrides"]["checkpoint.load"]), "ada")]  # type: ignore[index]


async def test_an_existing_artifact_is_used_and_not_stored_again(connection: Database) -> None:
    source = await chain(connection)
    wanted = artifact_id(source.id, 3, 0)
    made = await replay(connection, asking(source, overrides={"checkpoint.load": wanted}))
    row = (await own_rows(connection, made))["load"]
    (output,) = Outputs.FromString(row["override_outputs"]).outputs
    assert value_of(output.payload) == "test"
    assert await connection.fetchval("SELECT count(*) FROM artifacts") == 0
    assert made.replay is not None
    assert made.replay["overrides"] == {"checkpoint.load": str(wanted)}


async def test_an_override_is_where_a_replay_of_the_replay_starts_from(connection: Database) -> None:
    source = await chain(connection)
    first = await replay(connection, asking(source, overrides={"checkpoint.load": payload([7])}))
    await finish(connection, first)
    second = await replay(connection, from_(first, "fit"))
    assert sorted(await own_rows(connection, second)) == ["fit", "report", "test"]
    found = await artifacts.find(connection, artifact_id(second.id, 1, 0))
    assert found.payload == payload([7]).SerializeToString()


async def test_a_re_executing_step_keeps_its_override_and_the_plan_warns(connection: Database) -> None:
    source = await chain(connection)
    first = await replay(connection, asking(source, overrides={"checkpoint.load": payload([7])}))
    await finish(connection, first)
    found = await plan(connection, from_(first, "load"))
    assert found.warnings == ("load: re-executes, though its output is overridden anyway",)
    second = await replay(connection, from_(first, "load"))
    rows = await own_rows(connection, second)
    assert rows["load"]["override_outputs"] is not None
    assert rows["fit"]["blocked_by"] == 0, "it does not wait for what it does not take"


async def test_a_single_input_is_replaced_and_its_edge_goes(connection: Database) -> None:
    steps = [Recorded("a"), Recorded("b"), Recorded("gather", takes=["a", "b"])]
    source = await record(connection, steps)
    request = from_(source, "a", step_input_overrides={"gather": {"in_a": payload("X")}})
    found = await plan(connection, request)
    assert found.roots == {"a": {"from"}, "gather": {"step_input_override"}}
    made = await replay(connection, request)
    row = (await own_rows(connection, made))["gather"]
    assert (row["upstream"], row["blocked_by"], row["overridden_inputs"]) == ([2], 0, ["in_a"])
    bindings = Inputs.FromString(row["inputs"]).bindings
    assert value_of(bindings["in_a"].value) == "X"
    assert bindings["in_b"].output.number == 2
    await finish(connection, made)
    again = await replay(connection, asking(made, mode=Mode.EVERYTHING))
    row = (await own_rows(connection, again))["gather"]
    assert (row["upstream"], row["overridden_inputs"]) == ([2], ["in_a"])


async def test_an_order_edge_does_not_take_an_overridden_output(connection: Database) -> None:
    source = await record(connection, [Recorded("a"), Recorded("b", takes=["a"]), Recorded("c", after=["a"])])
    found = await plan(connection, asking(source, overrides={"checkpoint.a": payload(1)}))
    assert found.affected == ["b"]


# --- waits and flows


async def test_a_flow_s_replay_starts_with_its_body_and_asks_every_wait_again(connection: Database) -> None:
    steps = [
        Recorded("research"),
        Recorded("approve", kind="wait", reads=()),
        Recorded("draft", takes=["research"]),
        Recorded("publish", takes=["draft"]),
    ]
    source = await record(connection, steps, kind="flow", inputs={"topic": "x"})
    found = await plan(connection, from_(source, "draft"))
    assert (found.affected, found.waits) == (["draft", "publish"], ["approve"])
    assert list(found.reused) == ["research"]
    made = await replay(connection, from_(source, "draft"))
    rows = await own_rows(connection, made)
    assert {one: (row["state"], row["kind"], row["called"]) for one, row in rows.items()} == {
        "approve": ("pending", "wait", False),
        "draft": ("pending", "step", False),
        "publish": ("pending", "step", False),
    }
    assert await tasks(connection, made) == {0: "default/m:training"}
    assert made.state == "pending"


async def test_waits_cannot_be_skipped_overridden_or_given_inputs(connection: Database) -> None:
    source = await record(connection, [Recorded("approve", kind="wait"), Recorded("a")], kind="flow")
    assert "always asked again" in await usage_problems(connection, skipping(source, "approve"))
    request = asking(source, overrides={"checkpoint.approve": payload(1)})
    assert "is a wait, and waits cannot be overridden" in await usage_problems(connection, request)
    request = asking(source, step_input_overrides={"approve": {"k": payload(1)}})
    assert "is a wait and has no inputs" in await usage_problems(connection, request)


async def test_calls_that_a_replayed_body_did_not_make_are_no_part_of_it(connection: Database) -> None:
    source = await chain(connection, kind="flow")
    first = await replay(connection, from_(source, "test"))
    await connection.execute(
        "UPDATE invocations SET state = 'not_reached' WHERE execution_id = $1 AND number = 4", first.id
    )
    await finish(connection, first)
    found = await plan(connection, from_(first, "load"))
    assert found.affected == ["load", "fit", "test"]
    with pytest.raises(StateError, match="refused"):
        await plan(connection, from_(first, "report"))


# --- today's code


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


# --- requests, agreements, lineages


async def test_a_request_is_idempotent(connection: Database) -> None:
    source = await chain(connection)
    how = Creation(request_id=uuid4(), request_digest="one")
    first = await replay(connection, from_(source, "fit"), how)
    assert (await replay(connection, from_(source, "fit"), how)).id == first.id
    with pytest.raises(UsageError, match="used for another request"):
        await replay(connection, from_(source, "test"), Creation(how.request_id, "two"))


async def test_the_same_request_at_the_same_time_creates_one_replay(connection: Database, database: str) -> None:
    source = await chain(connection)
    how = Creation(request_id=uuid4(), request_digest="one")
    other = await connect(database)
    try:
        made = await asyncio.gather(*(replay(one, from_(source, "fit"), how) for one in (connection, other)))
    finally:
        await other.close()
    assert made[0].id == made[1].id
    assert await connection.fetchval("SELECT count(*) FROM executions") == 2


async def test_a_plan_that_was_agreed_to_is_kept_to(connection: Database) -> None:
    source = await record(connection, [Recorded("a"), Recorded("b", state="failed")], state="failed")
    agreed = (await plan(connection, from_(source, "a"))).digest
    await replay(connection, from_(source, "a"), Creation(expected_plan=agreed))
    await connection.execute("UPDATE invocations SET state = 'completed' WHERE execution_id = $1", source.id)
    with pytest.raises(StateError) as refused:
        await replay(connection, from_(source, "a"), Creation(expected_plan=agreed))
    assert refused.value.reason == "PLAN_CHANGED"


async def test_a_taken_run_name_is_refused(connection: Database) -> None:
    source = await chain(connection)
    with pytest.raises(UsageError) as refused:
        await replay(connection, asking(source), Creation(name=source.name))
    assert refused.value.reason == "NAME_TAKEN"
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1


async def test_what_a_source_gets_later_changes_no_replay(connection: Database) -> None:
    source = await record(
        connection, [Recorded("a"), Recorded("b", state="failed", takes=["a"])], kind="flow", state="failed"
    )
    made = await replay(connection, from_(source, "b"))
    await connection.execute(
        "INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module)"
        " VALUES ($1, 3, 3, 'later', 'later', 'completed', 'm')",
        source.id,
    )
    await connection.execute("UPDATE invocations SET state = 'completed' WHERE execution_id = $1", source.id)
    shown, _ = await invocations.list_page(connection, made.id, made.kind, 0, 10)
    assert [(one.invocation_id, str(one.state)) for one in shown] == [("a", "reused"), ("b", "pending")]


async def test_deep_lineages_are_cut_and_show_the_same(connection: Database) -> None:
    source = await chain(connection)
    current = source
    for _ in range(DEEPEST_LINEAGE + 2):
        current = await replay(connection, from_(current, "report"))
        await finish(connection, current)
        shown, _ = await invocations.list_page(connection, current.id, current.kind, 0, 10)
        assert [one.invocation_id for one in shown] == ["load", "fit", "test", "report"]
        assert [one.call_id for one in shown][:3] == [call_id(source.id, number) for number in (1, 2, 3)]
    depth = await connection.fetchval("SELECT count(*) FROM lineage WHERE execution_id = $1", current.id)
    assert depth <= DEEPEST_LINEAGE
    found = await plan(connection, from_(current, "fit"))
    assert (found.affected, found.reused) == (["fit", "test", "report"], {"load": str(call_id(source.id, 1))})


async def test_a_cut_lineage_keeps_the_order_of_futures(connection: Database) -> None:
    current = await chain(connection, kind="flow")
    await connection.executemany("INSERT INTO yields VALUES ($1, $2, $3)", [(current.id, 1, 2), (current.id, 2, 1)])
    order = "SELECT array_agg(number ORDER BY place) FROM effective_yields($1)"
    for _ in range(DEEPEST_LINEAGE + 2):
        current = await replay(connection, from_(current, "report"))
        await finish(connection, current)
        assert await connection.fetchval(order, current.id) == [2, 1]


async def test_a_single_step_is_an_execution_of_its_own(connection: Database) -> None:
    source = await chain(connection, kind="flow")
    request = from_(source, "fit", single_step=True, step_input_overrides={"fit": {"k": payload(5)}})
    found = await plan(connection, request)
    assert (found.affected, found.reused, found.counts) == (["fit"], {}, (1, 1, 0))
    made = await replay(connection, request)
    assert (made.single_step, str(made.kind), made.invocation_count, made.source_id) == (True, "pipeline", 1, source.id)
    rows = await own_rows(connection, made)
    assert list(rows) == ["fit"]
    assert value_of(Inputs.FromString(rows["fit"]["inputs"]).bindings["k"].value) == 5
    assert await tasks(connection, made) == {2: "default/m:fit"}
    await finish(connection, made)
    assert "replays a single step" in await state_problems(connection, asking(made))


@pytest.mark.semantics("3", "only if it succeeded in the source", "largest upstream-closed set of steps that succeeded")
@pytest.mark.semantics("3", "each invocation that did not complete in the source and whose output is not overridden")
async def test_what_failed_and_was_overridden_did_not_succeed_in_any_replay_of_it(connection: Database) -> None:
    steps = [
        Recorded("a", state="failed"),
        Recorded("b", takes=["a"], state="not_reached"),
        Recorded("c", outputs=()),
        Recorded("d", takes=["c"]),
    ]
    source = await record(connection, steps, state="failed")
    overrides: dict[str, Given] = {"checkpoint.a": payload(1), "checkpoint.c": payload(2)}
    first = await replay(connection, asking(source, overrides=overrides))
    await finish(connection, first)
    second = await replay(connection, from_(first, "d"))
    await finish(connection, second)
    for made in (first, second):
        assert (await plan(connection, from_(made, "d"))).affected == ["d"], "an overridden output can be reused"
        assert "a cannot be skipped: it did not succeed" in await usage_problems(connection, skipping(made, "a", "b"))
        assert (await plan(connection, skipping(made, "c", "d"))).affected == ["a", "b"]
        found = await plan(connection, asking(made, mode=Mode.SKIP_SUCCESSFUL))
        assert found.roots == {"a": {"not_completed"}}
        assert found.affected == ["a", "b"]


@pytest.mark.semantics("4", "Values are checked against the recorded types")
async def test_an_overridden_output_is_of_the_type_that_the_step_returns(connection: Database) -> None:
    source = await chain(connection)
    rows = '{"type": "array", "items": {"type": "integer"}}'
    await define(connection, "step", "load", {}, outputs={"output": rows})
    told = await usage_problems(connection, asking(source, overrides={"checkpoint.load": payload([1, "two"])}))
    assert "overrides[\"checkpoint.load\"][1]: 'two' is not of type 'integer'" in told
    assert (await plan(connection, asking(source, overrides={"checkpoint.load": payload([1, 2])}))).affected[0] == "fit"
    number = '{"type": "number"}'
    today = Definition(
        kind=DEFINITION_KIND_STEP, module=MODULE, name="load", digest=CHANGED, output_schemas={"output": number}
    )
    code = TodaysCode(MODULE, "training", definitions=[today])
    told = await usage_problems(connection, asking(source, overrides={"checkpoint.load": payload([1])}, code=code))
    assert "[1] is not of type 'number'" in told, "replayed from code, today's types count"


@pytest.mark.parametrize("change", ["state = 'running', last_event = last_event + 1", None], ids=["retried", "deleted"])
async def test_a_source_that_changes_while_it_is_planned_is_planned_again(
    connection: Database, database: str, change: str | None
) -> None:
    source = await chain(connection)
    other = await connect(database)
    async with connection.transaction():
        made = await make_plan(connection, from_(source, "test"))
        what = f"UPDATE executions SET {change}" if change else "DELETE FROM executions"
        await other.execute(f"{what} WHERE id = $1", source.id)
        with pytest.raises(asyncpg.SerializationError):
            await create_replay(connection, made, Creation())
    await other.close()
