"""SEMANTICS §3: what re-executes, what is reused, and what a plan says of it."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno import Client, Execution, flow, step
from dalsegno.client.plans import Plan, RootReason
from dalsegno.errors import DalsegnoError, ExecutionError, StateError, UsageError
from tests.e2e.oracle.tables import Tables
from tests.e2e.planning.plans import ids, reasons, replayed
from tests.e2e.planning.programs import IDS, RESULT, breaking, fan

OLD = "0" * 64
"""The digest of code that nobody has any more."""


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
