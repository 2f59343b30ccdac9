"""What a replay writes, and what is read through its lineage: SEMANTICS §3 and §4, sentence by sentence."""

from __future__ import annotations

from uuid import UUID

from dalsegno.v1.value_pb2 import FlowInputs, Inputs, Outputs
from dalsegno_planner.core.ids import artifact_id, call_id
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store import artifacts, invocations
from dalsegno_planner.store.replay_request import Creation
from tests.store.graphs import Database, Recorded, finish, own_rows, payload, plan, record, replay, tasks, value_of
from tests.store.replay_requests import CHAIN, asking, chain, from_, state_problems


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
