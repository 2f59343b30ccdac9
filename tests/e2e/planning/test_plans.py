"""SEMANTICS §3: what re-executes, what is reused, and what a plan says of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from dalsegno import Client, Execution, flow, pipeline, step, wait
from dalsegno.client.plans import Plan, RootReason
from dalsegno.errors import DalsegnoError, ExecutionError, StateError, UsageError
from tests.e2e.oracle.tables import Tables
from tests.e2e.planning.programs import IDS, RESULT, breaking, fan, fan_flow, ran

OLD = "0" * 64
"""The digest of code that nobody has any more."""


def ids(entries: Any) -> list[str]:
    return [one.invocation_id for one in entries]


def reasons(plan: Plan) -> dict[str, list[tuple[RootReason, str]]]:
    return {one.invocation_id: [(reason.kind, reason.cause) for reason in one.reasons] for one in plan.roots}


def replayed(client: Client, source: Execution, **request: Any) -> Execution:
    """A replay that does what its plan says, and nothing else in a pipeline."""
    plan = client.executions.plan(source, **request)
    ran.clear()
    replay = client.executions.wait(client.executions.replay(source, expect_plan=plan.digest, **request), 60)
    names = {one.invocation_id: one.name for one in replay.checkpoints}
    assert sorted(ran) == sorted(names[one] for one in ids(plan.affected))
    assert {one.invocation_id for one in replay.checkpoints if one.status == "reused"} == set(ids(plan.reused))
    return replay


DOWNSTREAM = {
    "load": ["load", "work", "work_2", "pair", "gather", "gather_2", "clean"],
    "invocation:work": ["work", "gather", "gather_2", "clean"],
    "own": ["own", "gather"],
    "pair": ["pair", "gather"],
    "gather_2": ["gather_2", "clean"],
    "clean": ["clean"],
}


@pytest.mark.semantics("3", "Graph: invocations; an edge from u to v when an input of v takes an output of u")
@pytest.mark.semantics("3", "from | from_= one selector or a list | the roots and their descendants")
@pytest.mark.semantics(
    "3", "each from_ selector;", "Rules:", "Affected = roots ∪ all their descendants, over every edge."
)
@pytest.mark.semantics("3", "Roots are the union of:", "Nothing affected is ever reused")
@pytest.mark.parametrize(("selector", "affected"), DOWNSTREAM.items())
def test_the_roots_and_whatever_is_downstream_of_them_re_execute(
    client: Client, run: Execution, selector: str, affected: list[str]
) -> None:
    """Edges lead through lists, tuples and dicts, through one of several outputs, and through `after`."""
    plan = client.executions.plan(run, from_=selector)
    assert ids(plan.affected) == affected
    assert reasons(plan) == {affected[0]: [(RootReason.FROM, selector)]}
    assert ids(plan.reused) == [one for one in IDS if one not in affected]
    assert replayed(client, run, from_=selector).result == RESULT


@pytest.mark.semantics("3", "Both reference systems break this: one returns the old output of a step downstream")
@pytest.mark.semantics("3", "In a pipeline nothing else re-executes; in a flow the plan is a lower bound")
def test_re_executed_steps_run_again_though_they_have_run_with_the_same_inputs(client: Client, run: Execution) -> None:
    """Also in a replay of a replay, and downstream of an overridden output that equals the recorded one."""
    first = replayed(client, run, from_="pair")
    second = replayed(client, first, from_="pair")
    replayed(client, second, overrides={"checkpoint.load": [4, 2]})


MODES: dict[str, tuple[dict[str, Any], list[str], dict[str, RootReason]]] = {
    "overrides of a checkpoint": (
        {"overrides": {"checkpoint.own": 1}},
        ["gather"],
        {"gather": RootReason.CHECKPOINT_OVERRIDE},
    ),
    "overrides of a step's input": (
        {"step_input_overrides": {"work_2": {"by": 10}}},
        ["work_2", "gather", "gather_2", "clean"],
        {"work_2": RootReason.STEP_INPUT_OVERRIDE},
    ),
    "changed code": ({"rerun_changed_code": True}, [], {}),
    "skip": (
        {"skip": ["load", "all:work", "pair", "gather_2"]},
        ["gather", "clean"],
        {"gather": RootReason.NOT_SKIPPED, "clean": RootReason.NOT_SKIPPED},
    ),
    "skip nothing": ({"skip": []}, IDS, dict.fromkeys(IDS, RootReason.NOT_SKIPPED)),
    "skip successful": ({"skip_successful_steps": True}, [], {}),
    "skip successful, with an overridden parameter that steps read": (
        {"skip_successful_steps": True, "inputs": {"label": "parts"}},
        ["gather"],
        {"gather": RootReason.FLOW_INPUT_OVERRIDE},
    ),
    "skip successful, with an overridden step input": (
        {"skip_successful_steps": True, "step_input_overrides": {"gather_2": {"label": "nested"}}},
        ["gather_2", "clean"],
        {"gather_2": RootReason.STEP_INPUT_OVERRIDE},
    ),
    "everything": ({}, IDS, dict.fromkeys(IDS, RootReason.EVERYTHING)),
    "flow inputs alone": ({"inputs": {"label": "parts"}}, IDS, dict.fromkeys(IDS, RootReason.EVERYTHING)),
    "from, with an override": (
        {"from_": "pair", "overrides": {"checkpoint.own": 1}, "rerun_changed_code": True},
        ["pair", "gather"],
        {"pair": RootReason.FROM, "gather": RootReason.CHECKPOINT_OVERRIDE},
    ),
}  # fmt: skip


@pytest.mark.semantics(
    "3", "overrides | checkpoint or step-input overrides", "changed code | rerun_changed_code=True alone"
)
@pytest.mark.semantics("3", "skip | skip=[…] / steps_to_skip | everything not listed.")
@pytest.mark.semantics("3", "skip successful | skip_successful_steps=True", "everything | none of these")
@pytest.mark.semantics("3", "(skip=[] is the mode skip)", "Overrides and rerun_changed_code combine with every mode")
@pytest.mark.semantics(
    "3", "for each override checkpoint.<selector>: every direct consumer of that invocation's output;"
)
@pytest.mark.semantics("3", "each invocation with an entry in step_input_overrides;")
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_re_executes_what_the_table_says(client: Client, run: Execution, mode: str) -> None:
    request, affected, roots = MODES[mode]
    plan = client.executions.plan(run, **request)
    assert ids(plan.affected) == affected
    assert {
        one: [why.kind for why in entry.reasons] for one, entry in zip(ids(plan.roots), plan.roots, strict=True)
    } == {one: [why] for one, why in roots.items()}
    assert replayed(client, run, **request).result == RESULT


@pytest.mark.semantics("3", "Modes, exactly one per request, chosen by presence and not by truth")
@pytest.mark.parametrize(
    "modes",
    [
        {"from_": "load", "skip": []},
        {"from_": [], "skip_successful_steps": True},
        {"skip": [], "skip_successful_steps": True},
    ],
)
def test_two_modes_are_refused_and_so_is_one_that_names_nothing(
    client: Client, run: Execution, modes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        client.executions.plan(run, **modes)
    with pytest.raises(UsageError, match="no invocation is named"):
        client.executions.plan(run, from_=[])


@pytest.mark.semantics(
    "3", "A step can be skipped only if everything upstream of it is skipped too, and only if it succeeded"
)
@pytest.mark.semantics("3", "one that makes a root of a step that is also in skip is UsageError")
def test_what_cannot_be_skipped_is_named_with_why(client: Client, run: Execution) -> None:
    with pytest.raises(UsageError) as refused:
        client.executions.plan(
            run,
            skip=["load", "work", "own", "gather_2", "clean"],
            overrides={"checkpoint.load": [1]},
            step_input_overrides={"own": {"by": 5}},
        )
    for why in (
        "work cannot be skipped: it must re-execute, because it takes an output that 'checkpoint.load' overrides",
        "own cannot be skipped: it must re-execute, because one of its inputs is overridden",
        "gather_2 cannot be skipped: it comes after work_2, which is not skipped",
    ):
        assert why in str(refused.value)
    assert "clean cannot" not in str(refused.value)


@pytest.mark.semantics("3", "only if it succeeded in the source", "each invocation that did not complete in the source")
def test_what_failed_has_nothing_to_reuse_unless_it_is_overridden(client: Client) -> None:
    with pytest.raises(ExecutionError) as failed:
        breaking()
    source = client.executions.get(failed.value.exec_id)
    plan = client.executions.plan(source, skip_successful_steps=True)
    assert reasons(plan) == {one: [(RootReason.NOT_COMPLETED, "")] for one in ("fragile", "shout")}
    with pytest.raises(UsageError, match="fragile cannot be skipped: it did not succeed"):
        client.executions.plan(source, skip=["fragile"], overrides={"checkpoint.fragile": "mended"})
    mended = replayed(client, source, overrides={"checkpoint.fragile": "mended"})
    assert mended.result == "MENDED"
    assert ids(client.executions.plan(mended, from_="shout").affected) == ["shout"]
    assert ids(client.executions.plan(mended, skip_successful_steps=True).affected) == ["fragile", "shout"]
    with pytest.raises(UsageError, match="fragile cannot be skipped: it did not succeed"):
        client.executions.plan(mended, skip=["fragile"])


@pytest.mark.semantics("3", "Every root in the plan carries its reasons; every reused invocation carries the call ID")
def test_a_root_has_all_its_reasons_and_what_is_reused_the_call_that_supplies_it(
    client: Client, run: Execution
) -> None:
    plan = client.executions.plan(
        run,
        from_="invocation:gather",
        overrides={"checkpoint.own": 1, "checkpoint.invocation:work": 12},
        step_input_overrides={"gather": {"label": "parts"}},
    )
    assert reasons(plan)["gather"] == [
        (RootReason.CHECKPOINT_OVERRIDE, "checkpoint.invocation:work"),
        (RootReason.CHECKPOINT_OVERRIDE, "checkpoint.own"),
        (RootReason.FROM, "invocation:gather"),
        (RootReason.STEP_INPUT_OVERRIDE, "gather"),
    ]
    first = replayed(client, run, from_="pair")
    second = replayed(client, first, from_="clean")
    third = client.executions.plan(second, from_="clean")
    suppliers = {one.invocation_id: one.call_id for one in third.reused}
    assert suppliers == {
        one: (first if one in ("pair", "gather") else run).checkpoints[one].call_id for one in IDS if one != "clean"
    }


@pytest.mark.semantics(
    "3", "The plan is computed and fully validated before anything is created, values are uploaded after"
)
@pytest.mark.semantics("3", "All problems of a request come in one error.", "A refused replay leaves no trace.")
@pytest.mark.parametrize("how", ["executions.replay", "executions.plan", "from code"])
def test_all_problems_come_in_one_error_and_nothing_is_left(
    client: Client, tables: Tables, run: Execution, how: str
) -> None:
    before, stored = tables.counts(), objects(client)
    request: dict[str, Any] = {
        "overrides": {
            "foo": 1, "wait.x": 2, "checkpoint.": 3, "checkpoint.lod": 4, "checkpoint.clean": "x", "checkpoint.pair": 5,
            "checkpoint.load": ["x" * 100_000],
        },
        "step_input_overrides": {"wrk": {"by": 1}, "work": {"bye": 1, "by": "two", "xs": UUID(int=5)}},
        "on_stale": "never",
    }  # fmt: skip
    inputs = {"pth": "x", "by": "fast", "label": "y" * 100_000}
    selectors = ["wokr", "work", " "]
    if how == "from code" and run.kind == "pipeline":
        request = {"step_input_overrides": request["step_input_overrides"]}
    asked: dict[str, Callable[[], object]] = {
        "executions.replay": lambda: client.executions.replay(run, from_=selectors, inputs=inputs, **request),
        "executions.plan": lambda: client.executions.plan(run, from_=selectors, inputs=inputs, **request),
        "flow from code": lambda: fan_flow.replay(run.exec_id, from_=selectors, inputs=inputs, **request),
        "pipeline from code": lambda: fan.replay(pipeline_run=run, skip=selectors, input_overrides=inputs, **request),
    }
    with pytest.raises(UsageError) as refused:
        asked[f"{run.kind} {how}" if how == "from code" else how]()
    told = str(refused.value)
    common = [
        "did you mean 'work'", "names nothing", "did you mean 'path'", "has no input 'bye'", "'two'",
        f"no artifact has the ID {UUID(int=5)}",
        "by",
    ]  # fmt: skip
    more = [
        "write 'checkpoint.foo'", "waits cannot be overridden", "a selector is missing", "did you mean 'load'",
        "pair has several outputs", "'work' is ambiguous", "'never' is none of",
    ]  # fmt: skip
    if run.kind == "pipeline":
        more.append("no invocation takes the output of clean")
    for part in common + (more if "overrides" in request else ["work cannot be skipped: it comes after load"]):
        assert part in told, part
    assert (tables.counts(), objects(client)) == (before, stored)
    assert not ran


@pytest.mark.semantics("3", "All problems of a request come in one error.", "skip=[…] / steps_to_skip")
def test_problems_of_a_run_configuration_come_in_one_error(client: Client, pipeline_run: Execution) -> None:
    configuration = {
        "steps_to_skp": [],
        "steps_to_skip": ["laod"],
        "parameters": {"pth": 1},
        "step_input_overrides": {"own": {"b": 1}},
    }
    with pytest.raises(UsageError) as refused:
        client.replay_pipeline_run(pipeline_run.name, configuration)
    for part in ("did you mean 'steps_to_skip'", "did you mean 'load'", "did you mean 'path'", "did you mean 'by'"):
        assert part in str(refused.value)
    skipped = client.replay_pipeline_run(pipeline_run.name, {"steps_to_skip": ["load", "all:work"]})
    statuses = {one.invocation_id: one.status for one in client.executions.wait(skipped, 60).checkpoints}
    assert [one for one, status in statuses.items() if status == "reused"] == ["load", "work", "work_2", "own"]


def objects(client: Client) -> int:
    """How many objects are in the store."""
    folder = Path(urlsplit(client.reach.storage.limits.url).path)
    return sum(1 for _ in folder.rglob("blobs/*/*"))


@pytest.mark.semantics("3", "executions.plan(...) takes what replay takes and returns the plan: .roots (with .reasons)")
def test_a_plan_of_a_large_graph_is_counted_and_read_page_by_page(
    client: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        {
            "invocation_id": f"part_{one}",
            "name": "part",
            "status": "completed",
            "inputs": {},
            "outputs": {"output": one},
        }
        for one in range(1_300)
    ]
    total: dict[str, Any] = {"invocation_id": "total", "name": "total", "status": "completed", "outputs": {"output": 0}}
    total["inputs"] = {"parts": [{"step": one["invocation_id"], "output": "output"} for one in steps]}
    source = client.executions.import_({"flow": "large", "kind": "pipeline", "inputs": {}, "steps": [*steps, total]})
    before = tables.counts()
    asked: list[str] = []
    original = Plan._ask

    def noted(plan: Plan, view: Any, token: str) -> Any:
        asked.append(token)
        return original(plan, view, token)

    monkeypatch.setattr(Plan, "_ask", noted)
    plan = client.executions.plan(source, from_="part_7")
    assert (len(plan.roots), len(plan.affected), len(plan.reused), len(asked)) == (1, 2, 1_299, 1), (
        "nothing more is read"
    )
    assert ids(plan.affected) == ["part_7", "total"]
    assert [(one.invocation_id, one.name) for one in plan.reused[:2]] == [("part_0", "part"), ("part_1", "part")]
    assert len(asked) == 2
    assert ids(plan.reused) == [one["invocation_id"] for one in steps if one["invocation_id"] != "part_7"]
    assert len(asked) == 4
    assert (plan.waits, plan.warnings) == ((), ())
    assert len(plan.digest) == 64
    assert tables.counts() == before


@step
def fact(n: int) -> int:
    ran.append("fact")
    return n


@flow
def asking(n: int) -> Any:
    known = fact(n)
    return known, wait(name="go", schema=int), wait(name="sure", schema=bool)


def waiting(client: Client, execution: object) -> Execution:
    while (found := client.executions.get(execution)).status != "waiting":
        try:
            client.executions.wait(execution, 0.02)
        except TimeoutError:
            continue
    return found


@pytest.mark.semantics("3", ".waits that will be asked again")
@pytest.mark.semantics(
    "3", "A running source is refused (StateError); completed, failed, cancelled and waiting ones can be"
)
def test_waiting_cancelled_and_completed_sources_can_be_replayed_and_their_waits_are_asked_again(
    client: Client,
) -> None:
    first, second = (waiting(client, asking.run(one)) for one in (1, 2))
    assert ids(client.executions.plan(first, from_="fact").waits) == ["go"]
    replay = waiting(client, client.executions.replay(first, from_="fact"))
    for run in (first, replay):
        client.executions.input(run, wait="go", value=int(run.inputs["n"]) + 40)
        waiting(client, run)
        client.executions.input(run, wait="sure", value=True)
        assert client.executions.wait(run, 60).result == (1, 41, True)
    assert ids(client.executions.plan(first, from_="fact").waits) == ["go", "sure"]
    client.executions.cancel(second.exec_id)
    assert client.executions.wait(second, 60).status == "cancelled"
    assert ids(client.executions.plan(second, from_="fact").affected) == ["fact"]


def test_a_running_source_is_refused(client: Client) -> None:
    """It says what to do."""
    started, go_on = threading.Event(), threading.Event()
    _held[:] = [started, go_on]
    run = holding.run()
    assert started.wait(60)
    try:
        for ask in (client.executions.plan, client.executions.replay):
            with pytest.raises(StateError, match=r"is running; wait until it has ended, or cancel it"):
                ask(run.exec_id, from_="held")
    finally:
        go_on.set()
    run.wait(60)
    assert ids(client.executions.plan(run.exec_id, from_="held").affected) == ["held"]


_held: list[Any] = []


@step
def held() -> int:
    started, go_on = _held
    started.set()
    go_on.wait(60)
    return 1


@flow
def holding() -> int:
    return held()


_mended: list[bool] = []


@step
def flaky() -> str:
    if not _mended:
        raise ValueError("not yet")
    return "mended"


@step
def after_flaky(text: str) -> str:
    return text


@pipeline
def retried() -> str:
    return after_flaky(flaky())


@pytest.mark.semantics("3", "What a source gets afterwards (an answer, a retry) does not change a replay made before.")
def test_a_retry_of_the_source_does_not_change_a_replay(client: Client) -> None:
    _mended.clear()
    with pytest.raises(ExecutionError) as failed:
        retried()
    source = client.executions.get(failed.value.exec_id)
    replay = client.executions.wait(client.executions.replay(source, overrides={"checkpoint.flaky": "override"}), 60)
    again = client.executions.wait(client.executions.replay(source, from_="flaky"), 60)
    before = [(one.invocation_id, one.status, one.call_id) for run in (replay, again) for one in run.checkpoints]
    _mended.append(True)
    client.executions.retry(source.exec_id)
    assert client.executions.wait(source, 60).result == "mended"
    replay, again = (client.executions.get(run.exec_id) for run in (replay, again))
    assert (replay.result, again.status) == ("override", "failed")
    assert [
        (one.invocation_id, one.status, one.call_id) for run in (replay, again) for one in run.checkpoints
    ] == before
    with pytest.raises(UsageError, match="did not succeed"):
        client.executions.plan(replay, skip=["flaky"])
    assert ids(client.executions.plan(source, skip=["flaky"]).reused) == ["flaky"]


@pytest.mark.semantics(
    "3", "Warnings, never silence: a reused step whose code changed; a reused step that reads an overridden"
)
def test_what_should_be_known_is_warned_about(client: Client, run: Execution) -> None:
    assert not client.executions.plan(run, from_="load").warnings
    plan = client.executions.plan(run, from_="pair", inputs={"by": 7, "label": "x"})
    assert plan.warnings == ("work: reused, though it reads a flow input that is overridden",)
    plan = client.executions.plan(run, from_="load", overrides={"checkpoint.load": [1]})
    assert plan.warnings == ("load: re-executes, though its output is overridden anyway",)
    replay = client.executions.replay(run, from_="load", overrides={"checkpoint.load": [1]})
    assert replay.warnings == client.executions.wait(replay, 60).warnings == plan.warnings
    record: dict[str, Any] = {"flow": "fan", "kind": "pipeline", "module": fan.module, "inputs": {}}
    record["steps"] = [
        {"invocation_id": one, "name": "clean", "module": fan.module, "status": "completed", "inputs": {},
         "code_digest": digest, "outputs": {"output": "X"}}
        for one, digest in (("clean", OLD), ("clean_2", run.checkpoints["clean"].code_digest), ("clean_3", OLD))
    ]  # fmt: skip
    imported = client.executions.import_(record)
    plan = client.executions.plan(imported, from_="invocation:clean")
    assert plan.warnings == ("clean_3: reused, though the code of the step has changed since",)
    plan = client.executions.plan(imported, rerun_changed_code=True)
    assert reasons(plan) == {one: [(RootReason.CODE_CHANGED, "")] for one in ("clean", "clean_3")}


@pytest.mark.semantics("3", "Warnings, never silence")
def test_a_replay_from_code_warns_of_what_its_plan_would(pipeline_run: Execution) -> None:
    with pytest.warns(UserWarning, match="work: reused, though it reads a flow input") as caught:
        replay = fan.replay(pipeline_run=pipeline_run.name, skip=["load", "work"], input_overrides={"by": 7})
    assert caught[0].filename == __file__
    assert len(replay.warnings) == len(caught) == 1


@pytest.mark.semantics(
    "3", "replay(..., expect_plan=digest) refuses with StateError if the plan is no longer that one."
)
def test_a_plan_that_was_agreed_to_is_kept_to(client: Client, tables: Tables, run: Execution) -> None:
    agreed = client.executions.plan(run, from_="pair").digest
    before = tables.counts()
    for other in ({"from_": "own"}, {"from_": "pair", "inputs": {"by": 3}}, {"from_": "pair", "on_stale": "rerun"}):
        with pytest.raises(StateError, match=agreed):
            client.executions.replay(run, expect_plan=agreed, **other)
        with pytest.raises(DalsegnoError, match=agreed):
            client.executions.plan(run, expect_plan=agreed, **other)
    assert tables.counts() == before


def recorded_code() -> Any:
    """A flow and its steps as they were."""

    @step
    def brew(n: int) -> str:
        return f"tea {n}"

    @step
    def serve(drink: str) -> str:
        # On a tray.
        return f"served {drink}"

    @step
    def bill(n: int) -> int:
        return n * 3

    @flow
    def cafe(n: int) -> Any:
        return serve(brew(n)), bill(n)

    return cafe


def todays_code() -> Any:
    """The same with another `brew`; `serve` is only written otherwise."""

    @step
    def brew(n: int) -> str:
        return f"coffee {n}"

    @step
    def serve(drink: str) -> str:
        return f"served {drink}"  # with a smile

    @step
    def bill(n: int) -> int:
        return n * 3

    @flow
    def cafe(n: int) -> Any:
        return serve(brew(n)), bill(n)

    return cafe


@pytest.mark.semantics(
    "3", "with rerun_changed_code=True: each invocation whose step's code differs from the code that was"
)
def test_steps_whose_code_has_changed_re_execute(client: Client) -> None:
    source = client.executions.wait(recorded_code().run(2), 60)
    assert source.result == ("served tea 2", 6)
    replay = todays_code().replay(source.exec_id, rerun_changed_code=True)
    assert replay.wait(60) == ("served coffee 2", 6)
    statuses = {one.invocation_id: one.status for one in replay.execution.checkpoints}
    assert statuses == {"brew": "completed", "serve": "completed", "bill": "reused"}
    with pytest.raises(UsageError, match="brew cannot be skipped: it must re-execute, because its code has changed"):
        todays_code().replay(source.exec_id, rerun_changed_code=True, skip=["brew"])
    both = todays_code().replay(source.exec_id, rerun_changed_code=True, from_="bill").execution
    statuses = {one.invocation_id: one.status for one in client.executions.wait(both, 60).checkpoints}
    assert set(statuses.values()) == {"completed"}
