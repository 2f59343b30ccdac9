"""Which call ``step.replay`` means, and what it restores."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
import pytest

from dalsegno import Client, Execution, NotFoundError, StateError, UsageError, UserCodeError, flow, pipeline, step

got: list[dict[str, Any]] = []


@step
def load(size: int) -> tuple[Annotated[Any, "xs"], Annotated[dict[str, int], "facts"]]:
    got.append({"step": "load", "size": size})
    return np.arange(size), {"size": size}


@step
def train(
    xs: Any, rate: float, nested: list[dict[str, Any]], epochs: int = 3, label: str | None = None, **more: object
) -> float:
    got.append({"xs": len(xs), "rate": rate, "nested": nested, "epochs": epochs, "label": label, **more})
    if rate < 0:
        raise ValueError("a negative rate")
    return float(sum(xs)) * rate


@step
def report(scores: list[float]) -> str:
    got.append({"scores": scores})
    return ", ".join(f"{score:.1f}" for score in scores)


@pipeline
def training(size: int = 20_000, rate: float = 0.5) -> str:
    xs, facts = load(size)
    return report([train(xs, rate, [{"facts": facts}, {"rate": rate}], seed=1), train(xs, 2.0, [], label="b")])


@pipeline
def twin(size: int = 3) -> float:
    xs, _ = load(size)
    return train(xs, 1.0, [])


@flow
def training_flow(size: int = 4) -> float:
    xs, _ = load(size)
    return train(xs, 1.0, [])


@pytest.fixture(scope="module")
def run(client: Client) -> Execution:
    return training()


@pytest.fixture(autouse=True)
def forget() -> None:
    got.clear()


def only(replay: Execution) -> str:
    """The one call that a replay ran."""
    (ran,) = replay.checkpoints.names()
    assert len(got) == 1
    got.clear()
    return ran


@pytest.mark.semantics(
    "8",
    "Which step step.replay means: step_run_id; else pipeline_run with invocation_id",
    "else the latest finished run of pipeline with invocation_id",
)
def test_a_call_is_named_in_three_ways(client: Client, run: Execution) -> None:
    call = run.checkpoints["train_2"].call_id
    for step_run_id in (call, call[:-1], uuid.UUID(call)):
        named = train.replay(step_run_id=step_run_id)
        assert (only(named), named.original_exec_id) == ("train_2", run.exec_id)
    for pipeline_run in (run, run.name, run.exec_id, run.exec_id[:-3]):
        named = train.replay(pipeline_run=pipeline_run, invocation_id="train_2")
        assert (only(named), named.original_exec_id) == ("train_2", run.exec_id)
    newest = training(size=10)
    got.clear()
    for of_pipeline in (training, "training"):
        named = train.replay(pipeline=of_pipeline, invocation_id="train_2")
        assert (only(named), named.original_exec_id) == ("train_2", newest.exec_id)
    named = report.replay(pipeline=training)
    assert (only(named), named.original_exec_id) == ("report", newest.exec_id)


@pytest.mark.semantics("8", "Giving two that disagree is UsageError, never a silent choice")
def test_what_agrees_may_be_given_twice(client: Client, run: Execution) -> None:
    """Also where the run is older than the latest of its pipeline."""
    training(size=10)
    got.clear()
    call = run.checkpoints["train"].call_id
    agreeing: list[dict[str, Any]] = [
        {"step_run_id": call, "pipeline_run": run},
        {"step_run_id": call, "invocation_id": "train"},
        {"step_run_id": call, "pipeline": training},
        {"step_run_id": call, "pipeline_run": run.name, "pipeline": "training", "invocation_id": "train"},
        {"pipeline_run": run, "pipeline": training, "invocation_id": "train"},
    ]
    for arguments in agreeing:
        replay = train.replay(**arguments)
        assert (only(replay), replay.original_exec_id) == ("train", run.exec_id)


@pytest.mark.semantics(
    "8", "a step_run_id of another step: UsageError", "Giving two that disagree is UsageError, never a silent choice"
)
def test_what_disagrees_is_refused(client: Client, run: Execution) -> None:
    newer, other = training(size=10), twin()
    got.clear()
    before = sum(1 for _ in client.executions.list())
    call = run.checkpoints["train"].call_id
    disagreeing: list[dict[str, Any]] = [
        {"step_run_id": run.checkpoints["report"].call_id},
        {"step_run_id": call, "invocation_id": "train_2"},
        {"step_run_id": call, "invocation_id": "nothing"},
        {"step_run_id": call, "pipeline_run": newer},
        {"step_run_id": call, "pipeline": twin},
        {"pipeline_run": run, "pipeline": "twin", "invocation_id": "train"},
        {"pipeline_run": run, "invocation_id": "report"},
        {"step_run_id": other.checkpoints["train"].call_id, "pipeline": "training"},
        {"step_run_id": "not an ID"},
        {"step_run_id": ""},
        {"invocation_id": "train"},
        {},
    ]
    for arguments in disagreeing:
        with pytest.raises(UsageError):
            train.replay(**arguments)
    with pytest.raises(NotFoundError, match="train_2"):
        train.replay(pipeline_run=run, invocation_id="train_22")
    with pytest.raises(NotFoundError):
        train.replay(step_run_id=uuid.uuid4())
    assert sum(1 for _ in client.executions.list()) == before
    assert not got


@pytest.mark.semantics("8", "Several invocations and no invocation_id: StateError that lists them")
def test_several_calls_are_listed(run: Execution) -> None:
    with pytest.raises(StateError) as caught:
        train.replay(pipeline_run=run)
    for invocation_id in ("train", "train_2"):
        assert f"{invocation_id} ({run.checkpoints[invocation_id].call_id})" in str(caught.value)


@pytest.mark.semantics(
    "8",
    "A single-step replay is an execution of its own with the link to its source, and restores every input: artifacts "
    "and parameters alike",
)
def test_every_input_is_restored(client: Client, run: Execution) -> None:
    alone = train.replay(pipeline_run=run, invocation_id="train")
    facts = {"size": 20_000}
    first = {
        "xs": 20_000,
        "rate": 0.5,
        "nested": [{"facts": facts}, {"rate": 0.5}],
        "epochs": 3,
        "label": None,
        "seed": 1,
    }
    assert got == [first]
    assert alone.exec_id != run.exec_id
    assert (alone.original_exec_id, alone.single_step) == (run.exec_id, True)
    # It has the step and nothing else of its source: what is downstream there is not made of this.
    assert [(one.invocation_id, one.status) for one in alone.checkpoints] == [("train", "completed")]
    with pytest.raises(NotFoundError):
        alone.checkpoints["report"]
    assert alone.result == alone.checkpoints["train"].load() == sum(range(20_000)) * 0.5
    train.replay(pipeline_run=run, invocation_id="train", input_overrides={"rate": 9.0, "xs": [1, 2]})
    assert got[1] == {**first, "rate": 9.0, "xs": 2}
    # What was overridden before is what is restored, the latest first.
    changed = training.replay(
        pipeline_run=run, input_overrides={"rate": 4.0}, step_input_overrides={"train": {"epochs": 50}}
    )
    got.clear()
    train.replay(pipeline_run=changed, invocation_id="train")
    assert got == [{**first, "rate": 4.0, "nested": [{"facts": facts}, {"rate": 4.0}], "epochs": 50}]
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        train.replay(pipeline_run=run, invocation_id="train", input_overrides={"epoch": 1})
    with pytest.raises(UsageError, match="epochs"):
        train.replay(pipeline_run=run, invocation_id="train", input_overrides={"epochs": "many"})


def test_a_call_that_a_replay_reused_is_replayed_with_its_own_inputs(client: Client, run: Execution) -> None:
    """The ID of the call leads to the run that made it; with the replay it is the replay's."""
    replay = client.executions.wait(client.executions.replay(run.exec_id, from_="report"))
    got.clear()
    reused = replay.checkpoints["train"]
    assert reused.call_id == run.checkpoints["train"].call_id
    for arguments, source in (
        ({"step_run_id": reused.call_id}, run),
        ({"step_run_id": reused.call_id, "pipeline_run": replay}, replay),
        ({"pipeline_run": replay, "invocation_id": "train"}, replay),
    ):
        alone = train.replay(**arguments)
        assert (alone.original_exec_id, alone.checkpoints["train"].load()) == (source.exec_id, reused.load())


def test_a_step_that_failed_is_replayed_alone(client: Client) -> None:
    with suppress(UserCodeError):
        training(size=4, rate=-1.0)
    failed = next(client.executions.list(flow="training"))
    got.clear()
    with pytest.raises(UserCodeError, match="a negative rate") as caught:
        train.replay(pipeline_run=failed, invocation_id="train")
    assert client.executions.get(caught.value.exec_id).single_step
    mended = train.replay(pipeline_run=failed, invocation_id="train", input_overrides={"rate": 1.0})
    assert mended.checkpoints["train"].load() == 6.0
    with pytest.raises(StateError, match=r"report takes the output of train.*input_overrides"):
        report.replay(pipeline_run=failed)
    assert report.replay(pipeline_run=failed, input_overrides={"scores": [1.0]}).checkpoints["report"].load() == "1.0"


def test_a_step_of_a_flow_is_replayed_by_its_call(client: Client) -> None:
    handle = training_flow.run()
    handle.wait(30)
    got.clear()
    alone = train.replay(step_run_id=handle.execution.checkpoints["train"].call_id, input_overrides={"rate": 5.0})
    assert (alone.checkpoints["train"].load(), alone.single_step) == (30.0, True)
    assert [one["rate"] for one in got] == [5.0]


def test_a_step_with_several_outputs_returns_them_as_a_tuple(run: Execution) -> None:
    alone = load.replay(pipeline_run=run, input_overrides={"size": 3})
    xs, facts = alone.result
    assert (list(xs), facts) == ([0, 1, 2], {"size": 3})


def test_it_runs_the_code_that_is_here(client: Client, run: Execution) -> None:
    original = run.checkpoints["report"]

    @step(name="report")
    def todays_report(scores: list[float]) -> str:
        return f"today: {len(scores)}"

    alone = todays_report.replay(pipeline_run=run)
    assert alone.checkpoints["report"].load() == "today: 2"
    assert alone.checkpoints["report"].code_digest not in (None, original.code_digest)
    assert run.checkpoints["report"].load() == original.load()


@pytest.mark.semantics("8", "debug=True runs the replay in the calling process")
def test_a_single_step_is_debugged(run: Execution) -> None:
    alone = report.replay(pipeline_run=run, input_overrides={"scores": [1.0]}, debug=True)
    assert (alone.debug, alone.single_step, alone.original_exec_id) == (True, True, run.exec_id)
    assert alone.checkpoints["report"].load() == "1.0"


def test_a_step_is_replayed_from_a_replay_of_a_replay_at_any_depth(client: Client) -> None:
    """Also where lineages are cut, and a replay has copies of what it reuses."""
    latest = twin()
    for _ in range(17):
        latest = client.executions.wait(client.executions.replay(latest.exec_id, from_="train"))
        alone = train.replay(pipeline_run=latest)
        assert (alone.checkpoints.names(), alone.result) == (["train"], 3.0)


def test_each_version_of_a_step_runs_what_was_asked_of_it(run: Execution) -> None:
    """As in a notebook, where a cell is run again while what the earlier one started goes on."""

    @step(name="report")
    def first(scores: list[float]) -> str:
        return "the first version"

    @step(name="report")
    def second(scores: list[float]) -> str:
        return "the second version"

    for chosen in (first, second, report, first):
        expected = chosen([1.0])
        assert chosen.replay(pipeline_run=run, input_overrides={"scores": [1.0]}).result == expected
