"""SEMANTICS §4: what can be overridden, with what, and what stays of it."""

from __future__ import annotations

import datetime as dt
import getpass
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest

from dalsegno import ArtifactRef, Client, Execution, flow, pipeline, step
from dalsegno.errors import ExecutionError, NotFoundError, StateError, UsageError
from tests.e2e.oracle.tables import Tables
from tests.e2e.planning.programs import IDS, breaking, fan, fan_flow, gather, ran


def replayed(client: Client, source: Execution, **request: Any) -> Execution:
    ran.clear()
    return client.executions.wait(client.executions.replay(source, **request), 60)


def refused(client: Client, source: Execution, error: type[Exception], **request: Any) -> str:
    with pytest.raises(error) as told:
        client.executions.replay(source, **request)
    return str(told.value)


def carried(default: str, kind: Any) -> Any:
    """The same function at two times: today it has another default."""

    def greeting(name: str, tone: str = default, again: int = 1) -> str:
        return gather([name, again], tone)

    return kind(greeting)


@pytest.mark.semantics("4", "flow inputs / pipeline parameters | argument name | replaces that input")
@pytest.mark.parametrize("kind", [flow, pipeline], ids=["flow", "pipeline"])
def test_other_inputs_are_carried_over_as_recorded_and_never_today_s_default(client: Client, kind: Any) -> None:
    source = client.executions.wait(client.executions.start(carried("dry", kind), "ada"), 60)
    assert source.inputs == {"name": "ada", "tone": "dry", "again": 1}
    today = carried("warm", kind)
    from_code = today.replay(source.exec_id, again=2) if kind is flow else today.replay(
        pipeline_run=source, input_overrides={"again": 2}
    )  # fmt: skip
    for made in (
        client.executions.replay(source, again=2),
        from_code,
        client.executions.replay(source, inputs={"again": 2}),
    ):
        ended = client.executions.wait(made, 60)
        assert (ended.inputs, ended.overridden_inputs) == ({"name": "ada", "tone": "dry", "again": 2}, ("again",))
        assert ended.result == "dry ['ada', 2]"
        again = replayed(client, ended)
        assert (again.inputs["again"], again.result) == (2, ended.result), "it is part of what is replayed"


@pytest.mark.semantics(
    "4", "a checkpoint's output | checkpoint.<selector> | replaces the output at each direct consumer's input"
)
@pytest.mark.semantics("4", "Inside a fan-in, only the overridden element changes: overriding one of four inputs")
@pytest.mark.parametrize(
    ("selector", "listed", "nested"),
    [
        ("invocation:work", "parts [7, 60, 1, 2]", "nested {'a': (7, [60])}"),
        ("work_2", "parts [12, 7, 1, 2]", "nested {'a': (12, [7])}"),
        ("own", "parts [12, 60, 7, 2]", None),
        ("call", "parts [12, 60, 7, 2]", None),
    ],
)
def test_one_element_of_a_list_a_tuple_and_a_nested_dict_changes(
    client: Client, run: Execution, selector: str, listed: str, nested: str | None
) -> None:
    if selector == "call":
        selector = run.checkpoints["own"].call_id
    replay = replayed(client, run, overrides={f"checkpoint.{selector}": 7})
    assert replay.result["listed"] == listed
    assert replay.result["nested"] == (nested or run.result["nested"])
    assert sorted(ran) == ["gather"] if nested is None else ["clean", "gather", "gather"]
    statuses = {one.invocation_id: one.status for one in replay.checkpoints}
    assert statuses["work"] == statuses["work_2"] == statuses["own"] == "reused", "the checkpoint is not re-executed"
    assert [one.invocation_id for one in replay.checkpoints if one.output_overridden] == [
        next(one.invocation_id for one in run.checkpoints if selector in (one.call_id, one.invocation_id))
        if ":" not in selector
        else "work"
    ]


@pytest.mark.semantics("4", "checkpoint itself is not forced to re-execute, even where it failed")
def test_a_failed_checkpoint_can_be_overridden(client: Client) -> None:
    with pytest.raises(ExecutionError) as failed:
        breaking()
    source = client.executions.get(failed.value.exec_id)
    replay = replayed(client, source, overrides={"checkpoint.fragile": "mended"})
    assert (replay.status, replay.result, ran) == ("completed", "MENDED", ["shout"])


@step
def measure(n: int) -> int:
    return n


@flow
def plain_python(n: int) -> str:
    """No call takes what `measure` returns; the body does."""
    return f"{measure(n)} in all"


@step
def ends(n: int) -> Annotated[int, "low"]:
    return n


@pipeline
def unused(n: int = 1) -> int:
    return ends(n)


def test_the_body_of_a_flow_receives_the_override(client: Client) -> None:
    source = client.executions.wait(plain_python.run(3), 60)
    assert replayed(client, source, overrides={"checkpoint.measure": 5}).result == "5 in all"


def test_a_checkpoint_with_several_outputs_or_without_a_consumer_is_refused(client: Client, run: Execution) -> None:
    told = refused(client, run, UsageError, overrides={"checkpoint.pair": 1})
    assert "pair has several outputs (high, low)" in told, "also where consumers take one of them"
    if run.kind == "pipeline":
        assert "no invocation takes the output of gather" in refused(
            client, run, StateError, overrides={"checkpoint.invocation:gather": "x"}
        )
    else:
        replay = replayed(client, run, overrides={"checkpoint.invocation:gather": "x"})
        assert (replay.result["listed"], ran) == ("x", [])
    source = unused()
    assert "no invocation takes" in refused(client, source, StateError, overrides={"checkpoint.ends": 2})


@pytest.mark.semantics("4", "a step's inputs | step_input_overrides[invocation_id][input] | replaces just that input")
def test_one_input_of_one_invocation_is_replaced(client: Client, run: Execution) -> None:
    replay = replayed(client, run, step_input_overrides={"work": {"by": 100}, "gather": {"label": "of"}})
    assert replay.result["listed"] == "of [600, 60, 1, 2]"
    assert sorted(ran) == ["clean", "gather", "gather", "work"]
    assert {one.invocation_id: one.overridden_inputs for one in replay.checkpoints if one.overridden_inputs} == {
        "work": ("by",),
        "gather": ("label",),
    }
    replay = replayed(client, replay, step_input_overrides={"gather": {"parts": {"all": 1}}})
    assert (replay.result["listed"], ran) == ("of {'all': 1}", ["gather"])
    assert replay.result["nested"] == "nested {'a': (600, [60])}"


@pytest.mark.semantics(
    "4", "Any override key without checkpoint.: UsageError; wait.… says that waits cannot be overridden"
)
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("foo", "write 'checkpoint.foo'"),
        ("own", "write 'checkpoint.own'"),
        ("Checkpoint.own", "an override's key starts with 'checkpoint.'"),
        ("checkpoint", "an override's key starts with 'checkpoint.'"),
        ("", "an override's key starts with 'checkpoint.'"),
        (
            "wait.go",
            "waits cannot be overridden or answered beforehand: the replay asks again, and its wait is answered",
        ),
        ("wait.", "executions input"),
        ("checkpoint.", "a selector is missing"),
        ("checkpoint. ", "a selector is missing"),
    ],
)
def test_keys_that_mean_nothing_are_refused(client: Client, run: Execution, key: str, words: str) -> None:
    assert words in refused(client, run, UsageError, overrides={key: 1})


@pytest.mark.semantics("4", "A value is a plain value (stored as a new artifact once) or an existing artifact")
def test_values_are_plain_or_existing_artifacts(client: Client, tables: Tables, run: Execution) -> None:
    recorded = run.checkpoints["load"].artifacts[0]
    output = "checkpoint.load"

    def artifacts() -> int:
        return int(tables.counts()["artifacts"])

    plain = replayed(client, run, overrides={output: [5]})
    before = artifacts()
    for existing in (ArtifactRef(recorded.id), recorded.id, recorded, {"$artifact": str(recorded.id)}):
        replay = replayed(client, plain, overrides={output: existing})
        assert replay.checkpoints["load"].load() == run.checkpoints["load"].load()
        assert replay.result == run.result
    assert artifacts() == before, "it is used, and not stored again"
    replay = replayed(client, run, overrides={output: {"$value": [5]}}, step_input_overrides={"all:work": {"by": 5}})
    assert artifacts() == before + 2, "each value once, however many take it"
    assert replay.result["listed"] == "parts [25, 25, 5, 5]"
    marked = {"$artifact": "a word"}
    replay = replayed(client, run, step_input_overrides={"gather": {"parts": {"$value": marked}}})
    assert replay.result["listed"] == f"parts {marked}"


@step
def own(owner: UUID, other: Any) -> UUID:
    return owner


@step
def show(owner: UUID | None) -> str:
    return str(owner)


@flow
def owned(owner: UUID, other: Any = None) -> Any:
    return show(own(owner, other))


@pytest.mark.semantics("4", "a UUID where the input's own type does not admit UUIDs")
@pytest.mark.parametrize("from_code", [True, False], ids=["from code", "on the server"])
def test_a_uuid_is_a_value_where_the_type_has_uuids(client: Client, from_code: bool) -> None:
    first, second = uuid4(), uuid4()
    source = client.executions.wait(owned.run(first), 60)
    shown = source.checkpoints["show"].artifacts[0].id

    def again(**request: Any) -> Execution:
        made = owned.replay(source.exec_id, **request) if from_code else client.executions.replay(source, **request)
        return client.executions.wait(made, 60)

    assert again(inputs={"owner": second}).result == str(second)
    assert again(step_input_overrides={"show": {"owner": second}}).result == str(second)
    assert again(overrides={"checkpoint.own": second}).result == str(second)
    assert again(inputs={"other": shown}).inputs["other"] == str(first), "no type says that it is a value"
    assert again(inputs={"owner": {"$value": second}}).result == str(second)


@pytest.mark.semantics("4", "A missing artifact is NotFoundError before anything is created.")
def test_a_missing_artifact_is_not_found(client: Client, tables: Tables, run: Execution) -> None:
    before, nobody = tables.counts(), uuid4()
    for given in (nobody, ArtifactRef(nobody), {"$artifact": str(nobody)}):
        for request in (
            {"overrides": {"checkpoint.own": given}},
            {"step_input_overrides": {"work": {"by": given}}},
            {"inputs": {"by": given}},
        ):
            assert f"no artifact has the ID {nobody}" in refused(client, run, NotFoundError, **request)
    assert tables.counts() == before


@pytest.mark.semantics(
    "4", "Unknown flow inputs, unknown invocations, unknown step inputs: UsageError with the closest name."
)
def test_unknown_names_come_with_the_closest(client: Client, run: Execution) -> None:
    assert "did you mean 'label'" in refused(client, run, UsageError, lable="x")
    assert "did you mean 'gather_2' or 'gather'" in refused(
        client, run, UsageError, step_input_overrides={"gather_3": {"label": "x"}}
    )
    assert "did you mean 'parts'" in refused(client, run, UsageError, step_input_overrides={"gather": {"part": 1}})
    assert "did you mean 'own'" in refused(client, run, UsageError, skip=["onw"])


@pytest.mark.semantics(
    "4", "Values are checked against the recorded types (JSON Schema from the annotations; today's types"
)
def test_values_are_checked_with_their_path_before_anything_is_created(
    client: Client, tables: Tables, run: Execution
) -> None:
    before = tables.counts()
    told = refused(
        client,
        run,
        UsageError,
        inputs={"by": "fast", "path": ["data"]},
        overrides={
            "checkpoint.load": [1, "two"],
            "checkpoint.gather_2" if run.kind == "flow" else "checkpoint.own": [],
        },
        step_input_overrides={"work": {"xs": [1, [2]], "by": 0.5}},
    )
    for where in (
        'inputs["by"]', 'inputs["path"]', 'overrides["checkpoint.load"][1]', 'step_input_overrides["work"]["xs"][1]',
        'step_input_overrides["work"]["by"]', "overrides[\"checkpoint.gather_2\"]: [] is not of type 'string'"
        if run.kind == "flow" else "overrides[\"checkpoint.own\"]: [] is not of type 'integer'",
    ):  # fmt: skip
        assert where in told, where
    assert tables.counts() == before


@pytest.mark.parametrize("size", [10, 20_000])
def test_large_values_are_checked_and_stored_like_small_ones(client: Client, run: Execution, size: int) -> None:
    numbers = [1_000] * size
    told = refused(client, run, UsageError, overrides={"checkpoint.load": [*numbers, "two"]})
    assert f'overrides["checkpoint.load"][{size}]' in told
    told = refused(client, run, UsageError, step_input_overrides={"gather": {"label": numbers}})
    assert "is not of type 'string'" in told
    replay = replayed(client, run, overrides={"checkpoint.load": numbers})
    assert replay.result["listed"] == f"parts [{size * 2_000}, {size * 10_000}, 1, 1000]"
    assert replay.checkpoints["load"].load() == numbers
    again = replayed(
        client, replay, from_="pair", overrides={"checkpoint.load": replay.checkpoints["load"].artifacts[0]}
    )
    assert again.result == replay.result


@pytest.mark.semantics("4", "today's types when replayed from code")
def test_today_s_types_count_when_replayed_from_code(client: Client) -> None:
    def dated(day: int) -> str:
        return gather(day, "day")

    source = client.executions.wait(flow(dated).run(3), 60)

    def dated(day: dt.date | int) -> str:  # type: ignore[no-redef]
        return gather(str(day), "day")

    today = flow(dated)
    assert today.replay(source.exec_id, day=dt.date(2024, 5, 1)).wait(60) == "day 2024-05-01"
    with pytest.raises(UsageError, match=r'inputs\["day"\]'):
        today.replay(source.exec_id, day="tomorrow")


@pytest.mark.semantics("4", "An override is part of the replay's own record: replaying that replay starts from")
@pytest.mark.semantics(
    "4", "Who made it and when stays on the execution, and outputs computed from it can be told from"
)
def test_overrides_are_carried_through_replays_of_replays_with_provenance(client: Client, run: Execution) -> None:
    start = dt.datetime.now(dt.UTC)
    first = replayed(client, run, overrides={"checkpoint.own": 7}, inputs={"label": "L"}, from_="invocation:gather")
    second = replayed(client, first, step_input_overrides={"work_2": {"by": 1}})
    third = replayed(client, second, overrides={"checkpoint.invocation:work": 3})
    fourth = replayed(client, third, from_="clean")
    fifth = replayed(client, fourth)
    assert sorted(ran) == sorted(one.name for one in fifth.checkpoints), "everything"
    assert first.result["listed"] == "L [12, 60, 7, 2]"
    assert second.result["listed"] == "L [12, 6, 7, 2]"
    for one in (third, fourth, fifth):
        assert one.result["listed"] == "L [3, 6, 7, 2]"
        assert one.result["nested"] == "nested {'a': (3, [6])}"
        assert {each.invocation_id for each in one.checkpoints if each.output_overridden} == {"work", "own"}
        assert one.checkpoints["work_2"].overridden_inputs == ("by",)
    for one, source in ((first, run), (second, first), (third, second), (fourth, third), (fifth, fourth)):
        assert one.original_exec_id == source.exec_id
        assert one.requested_by is not None
        assert getpass.getuser() in one.requested_by
        assert one.created_at is not None
        assert start - dt.timedelta(seconds=5) < one.created_at < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=5)
    supplied = {
        one.invocation_id: client.executions.get(execution_of(one.call_id)).exec_id for one in fourth.checkpoints
    }
    assert supplied == {
        "load": run.exec_id, "pair": run.exec_id, "work": run.exec_id, "own": run.exec_id, "work_2": second.exec_id,
        "gather": third.exec_id, "gather_2": third.exec_id, "clean": fourth.exec_id,
    }  # fmt: skip
    assert set(supplied) == set(IDS)


def execution_of(call_id: str) -> str:
    """The part of a call's ID that is the execution's."""
    return UUID(call_id).hex[:22]


def test_overrides_are_those_of_the_replay_also_from_code(client: Client) -> None:
    first = fan.replay(pipeline_run=fan(), skip=["load"], step_input_overrides={"own": {"by": 4}})
    assert first.result["listed"] == "parts [12, 60, 4, 2]"
    again = fan.replay(pipeline_run=first, skip=["load", "all:work", "pair"])
    assert again.result["listed"] == first.result["listed"]
    source = client.executions.wait(fan_flow.run(), 60)
    changed = fan_flow.replay(source.exec_id, overrides={"checkpoint.own": 8}).wait(60)
    assert changed["listed"] == "parts [12, 60, 8, 2]"
