"""Which run ``pipeline.replay`` means, and what it takes."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dalsegno import Client, DivergenceError, Execution, NotFoundError, StateError, UsageError, flow, pipeline, step
from dalsegno.client.handles import ExecutionHandle

opened = threading.Event()
opened.set()
ran: list[str] = []


@pytest.fixture
def held() -> Iterator[None]:
    """Holds every step `fit` until the test lets go of it."""
    opened.clear()
    yield
    opened.set()


@step
def load(rows: int) -> list[int]:
    ran.append("load")
    return list(range(rows))


@step
def fit(data: list[int], rate: float) -> float:
    ran.append("fit")
    opened.wait(60)
    if rate < 0:
        raise ValueError("a negative rate")
    return sum(data) * rate


@pipeline
def training(rows: int = 4, rate: float = 1.0) -> float:
    return fit(load(rows), rate)


@pipeline
def tuning(rows: int = 4, rate: float = 1.0) -> float:
    return fit(load(rows), rate)


@flow
def training_flow(rows: int = 4) -> float:
    return fit(load(rows), 1.0)


def source_of(replay: Execution) -> str | None:
    return replay.original_exec_id


@pytest.mark.semantics("8", "Which run pipeline.replay means: pipeline_run (run name, ID or unique prefix)")
def test_a_run_is_named_by_its_name_its_id_or_a_prefix(client: Client) -> None:
    wanted = training()
    training()
    for named in (wanted.name, wanted.exec_id, wanted.exec_id[:-2], wanted.exec_id[-10:], wanted, wanted.refresh()):
        assert source_of(training.replay(pipeline_run=named, pipeline=training)) == wanted.exec_id
    with pytest.raises(StateError, match="give more of the ID") as ambiguous:
        training.replay(pipeline_run=wanted.exec_id[:6])
    assert next(client.executions.list()).exec_id in str(ambiguous.value)
    with pytest.raises(NotFoundError, match="did you mean"):
        training.replay(pipeline_run=f"{wanted.name[:-1]}!")
    for nothing in ("", "  ", 3):
        with pytest.raises(UsageError):
            training.replay(pipeline_run=nothing)


@pytest.mark.semantics(
    "8",
    "else the latest finished run of pipeline, else of this pipeline",
    "latest by creation, full replays counted, single-step and debug ones not",
)
def test_the_latest_finished_run_is_meant(held: None, client: Client) -> None:
    older = client.executions.start(training)
    opened.set()
    newer = training()
    opened.clear()
    client.executions.wait(older, 30)
    training_flow.run().wait  # noqa: B018 - a flow is no run of a pipeline
    opened.set()
    assert source_of(training.replay(input_overrides={"rate": 2.0})) == newer.exec_id
    replayed = training.replay()
    assert source_of(replayed) not in (older.exec_id, newer.exec_id)
    fit.replay(pipeline_run=replayed)
    training.replay(debug=True, pipeline_run=replayed)
    assert source_of(training.replay()) == replayed.exec_id
    tuned = tuning()
    for named in (None, tuning, "tuning"):
        replay = tuning.replay(pipeline=named)
        assert source_of(replay) == tuned.exec_id
        tuned = replay
    assert source_of(load.replay(pipeline=training)) == next(
        one.exec_id for one in client.executions.list(flow="training") if not (one.single_step or one.debug)
    )


@pytest.mark.semantics("8", "else the latest finished run of pipeline")
def test_a_failed_run_has_finished_too(client: Client) -> None:
    with suppress(Exception):
        training(rate=-1.0)
    failed = next(client.executions.list(flow="training"))
    assert failed.status == "failed"
    ran.clear()
    mended = training.replay(skip_successful_steps=True, input_overrides={"rate": 3.0})
    assert (source_of(mended), mended.result, ran) == (failed.exec_id, 18.0, ["fit"])


@pytest.mark.semantics("8", "a newer unfinished run is warned about")
def test_a_newer_unfinished_run_is_warned_about(held: None, client: Client) -> None:
    opened.set()
    finished = training()
    opened.clear()
    unfinished = client.executions.start(training)
    expected = f"{finished.name}.*{unfinished.name} is newer and (pending|running)"
    with pytest.warns(UserWarning, match=expected) as said:
        replay = training.replay(skip=["load", "fit"])
    assert [one.filename for one in said] == [__file__]
    assert source_of(replay) == finished.exec_id
    opened.set()
    client.executions.wait(unfinished)


@pytest.mark.semantics("8", "a newer unfinished run is warned about")
def test_the_warning_of_a_step_points_at_its_caller_too(held: None, client: Client) -> None:
    opened.set()
    finished = training()
    opened.clear()
    unfinished = client.executions.start(training)
    with pytest.warns(UserWarning, match=unfinished.name) as said:
        replay = load.replay(pipeline="training")
    assert [one.filename for one in said] == [__file__]
    assert source_of(replay) == finished.exec_id
    opened.set()
    client.executions.wait(unfinished)


def test_where_there_is_no_finished_run_that_is_said() -> None:
    @pipeline
    def never_run() -> list[int]:
        return load(1)

    with pytest.raises(NotFoundError, match="'never_run' has no finished run in project 'surface'"):
        never_run.replay()


@pytest.mark.semantics("8", "Giving two that disagree is UsageError, never a silent choice")
def test_a_run_of_another_pipeline_is_refused(client: Client) -> None:
    run, other = training(), tuning()
    handle: ExecutionHandle[float] = training_flow.run()
    handle.wait(30)
    before = sum(1 for _ in client.executions.list())
    for arguments in (
        {"pipeline_run": other},
        {"pipeline_run": run, "pipeline": tuning},
        {"pipeline_run": other.name, "pipeline": "training"},
        {"pipeline_run": handle},
        {"pipeline": "tuning"},
        {"pipeline": training_flow},
        {"pipeline": 3},
    ):
        with pytest.raises(UsageError):
            training.replay(**arguments)
    assert sum(1 for _ in client.executions.list()) == before


def test_the_signature_is_the_contracts() -> None:
    given = inspect.signature(training.replay).parameters
    for name, default in (
        ("pipeline_run", None),
        ("pipeline", None),
        ("skip", None),
        ("skip_successful_steps", False),
        ("input_overrides", None),
        ("step_input_overrides", None),
        ("debug", False),
    ):
        assert (given[name].kind, given[name].default) == (inspect.Parameter.KEYWORD_ONLY, default)


def test_all_that_a_replay_takes_comes_together(client: Client) -> None:
    run = training(rows=3, rate=2.0)
    ran.clear()
    replay = training.replay(
        pipeline_run=run.name,
        pipeline=training,
        skip=["load"],
        input_overrides={"rate": 10.0},
        step_input_overrides={"fit": {"data": [7]}},
        debug=True,
    )
    assert (replay.result, ran, replay.debug) == (70.0, ["fit"], True)
    assert replay.checkpoints["fit"].overridden_inputs == ("data",)
    assert dict(replay.inputs) == {"rows": 3, "rate": 10.0}
    ran.clear()
    again = training.replay(pipeline_run=replay, skip=[])
    assert (again.result, sorted(ran)) == (70.0, ["fit", "load"])
    for both in ({"skip": [], "skip_successful_steps": True}, {"skip": ["fit"]}, {"skip": ["lod"]}):
        with pytest.raises(UsageError):
            training.replay(pipeline_run=run, **both)


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"steps_to_skp": []}, "did you mean 'steps_to_skip'"),
        ({"skip": ["load"]}, "there are parameters, skip_successful_steps, step_input_overrides, steps_to_skip"),
        ({"parameter": {}, "step_inputs_override": {}}, "did you mean 'parameters'"),
        ({"parameters": {"rat": 1.0}}, "did you mean 'rate'"),
        ({"parameters": ["rate"]}, "parameters"),
        ({"steps_to_skip": "lod"}, "load"),
        ({"steps_to_skip": 3}, "steps_to_skip"),
        ({"skip_successful_steps": "no"}, "skip_successful_steps"),
        ({"step_input_overrides": {"fitt": {"data": [1]}}}, "did you mean 'fit'"),
        ({"step_input_overrides": {"fit": {"dat": [1]}}}, "did you mean 'data'"),
        ({"step_input_overrides": {"fit": 3}}, "fit"),
        (["load"], "run_configuration"),
    ],
)
def test_a_run_configuration_that_makes_no_sense_is_refused(client: Client, configuration: object, said: str) -> None:
    run = training()
    before = sum(1 for _ in client.executions.list())
    with pytest.raises(UsageError, match=said):
        client.replay_pipeline_run(run.name, configuration)  # type: ignore[arg-type]
    assert sum(1 for _ in client.executions.list()) == before


def test_a_run_configuration_does_what_it_says(client: Client) -> None:
    run = training(rows=3, rate=2.0)
    configuration = {
        "steps_to_skip": ["load"],
        "skip_successful_steps": False,
        "parameters": {"rate": 10.0},
        "step_input_overrides": {"fit": {"data": [7]}},
    }
    for named in (run.name, run.exec_id, run.exec_id[:-4]):
        ran.clear()
        replay = client.executions.wait(client.replay_pipeline_run(named, configuration))
        assert (replay.result, ran, replay.original_exec_id) == (70.0, ["fit"], run.exec_id)
    ran.clear()
    everything = client.executions.wait(client.replay_pipeline_run(run))
    assert (everything.result, sorted(ran)) == (6.0, ["fit", "load"])
    with pytest.raises(UsageError, match="flow"):
        client.replay_pipeline_run(training_flow.run(), {})


def test_no_warning_where_the_newest_has_finished(client: Client) -> None:
    training()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.replay()


def test_todays_code_must_fit_the_recorded_parameters(client: Client) -> None:
    run = training()

    @pipeline(name="training")
    def with_another_parameter(rows: int, rate: float, epochs: int) -> float:
        return fit(load(rows), rate * epochs)

    with pytest.raises(DivergenceError, match=r"epochs: is a new parameter"):
        with_another_parameter.replay(pipeline_run=run)
    assert with_another_parameter.replay(pipeline_run=run, input_overrides={"epochs": 3}).result == 18.0
