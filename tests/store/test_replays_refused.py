"""Which replays are refused, and what is said of them: SEMANTICS §2 to §4, sentence by sentence."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import pytest

from dalsegno.errors import NotFoundError
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_STEP, Definition
from dalsegno.v1.value_pb2 import Outputs
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.store.replay_request import Given, TodaysCode
from tests.store.graphs import CHANGED, MODULE, Database, Recorded, own_rows, payload, plan, record, replay
from tests.store.replay_requests import CHAIN, asking, chain, define, from_, skipping, state_problems, usage_problems


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


async def test_waits_cannot_be_skipped_overridden_or_given_inputs(connection: Database) -> None:
    source = await record(connection, [Recorded("approve", kind="wait"), Recorded("a")], kind="flow")
    assert "always asked again" in await usage_problems(connection, skipping(source, "approve"))
    request = asking(source, overrides={"checkpoint.approve": payload(1)})
    assert "is a wait, and waits cannot be overridden" in await usage_problems(connection, request)
    request = asking(source, step_input_overrides={"approve": {"k": payload(1)}})
    assert "is a wait and has no inputs" in await usage_problems(connection, request)
