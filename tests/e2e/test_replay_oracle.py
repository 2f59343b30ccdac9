"""Random flows and pipelines are run and replayed; a plain-Python run of the same program says what has to come.

Everything runs for real, on one engine and in this process. `DALSEGNO_ORACLE_EXAMPLES` raises the number of programs,
and `DALSEGNO_ORACLE_SHRINK` looks for the smallest that fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dalsegno import Client, flow, wait
from dalsegno.client.executions import Execution
from dalsegno.client.handles import ExecutionHandle
from dalsegno.errors import DalsegnoError, StateError
from dalsegno.local import engine
from dalsegno.local.engine import down
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.state import EngineState
from dalsegno_planner.store.replays import DEEPEST_LINEAGE
from tests.e2e.oracle.checks import check_flow, check_pipeline_scenario, finished, shown
from tests.e2e.oracle.plain import Circumstances, Overrides, run_flow, run_pipeline
from tests.e2e.oracle.programs import Description, generated_flow, generated_pipeline
from tests.e2e.oracle.scenarios import INPUTS, Asked, Replay, Scenario, flow_scenarios, pipeline_scenarios, planned
from tests.e2e.oracle.steps import compute, mix, number_of, ran
from tests.e2e.oracle.tables import Tables
from tests.postgres import reachable_folder

EXAMPLES = int(os.environ.get("DALSEGNO_ORACLE_EXAMPLES", "40"))
pytestmark = [
    pytest.mark.timeout(300 + 5 * EXAMPLES),
    pytest.mark.filterwarnings("ignore:replay :UserWarning"),  # what a plan warns of, examples do all the time
]
oracle = settings(
    max_examples=EXAMPLES,
    database=None,
    # Shrinking runs hundreds of programs more.
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if "DALSEGNO_ORACLE_SHRINK" in os.environ else [])],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    """An engine that is used by this process alone."""
    with pytest.MonkeyPatch.context() as patch, reachable_folder() as folder:
        patch.setenv(HOME_VARIABLE, str(folder / "home"))
        patch.setenv("DALSEGNO_PROJECT", "oracle")
        patch.delenv("DALSEGNO_ADDRESS", raising=False)
        patch.setattr(engine, "_used", {})
        with Client() as client:
            assert not list(client.executions.list())
            state = EngineState.read(EngineHome.from_environment().state_file)
            assert state is not None
            tables = Tables(state.database_url)
            yield tables
            tables.close()
        down()


@pytest.mark.semantics("3", "in a flow the plan is a lower bound, and §5 says what else can")
@pytest.mark.semantics(
    "5",
    "the body has received something new → the call is affected after all, and re-executes",
    "Affected calls, and calls never recorded, execute.",
    "Reused calls return the recorded output (or its override) without executing.",
    "never leaves a stale result behind, though no edge says so",
    "calls are numbered on the body's loop as they are created; asyncio.gather works",
)
@oracle
@given(flow_scenarios())
def test_flows(tables: Tables, scenario: Scenario) -> None:
    check_flow(tables, scenario)


@pytest.mark.semantics("3", "In a pipeline nothing else re-executes")
@pytest.mark.semantics("5", "A pipeline replays its recorded graph on the server with no body.")
@oracle
@given(pipeline_scenarios())
def test_pipelines(tables: Tables, scenario: Scenario) -> None:
    check_pipeline_scenario(tables, scenario)


deep = settings(oracle, max_examples=max(1, EXAMPLES // 40))


@deep
@given(flow_scenarios(DEEPEST_LINEAGE + 3))
def test_flows_replayed_again_and_again(tables: Tables, scenario: Scenario) -> None:
    """Lineages read right at any depth, and where they are compacted."""
    check_flow(tables, scenario)


@deep
@given(pipeline_scenarios(DEEPEST_LINEAGE + 3))
def test_pipelines_replayed_again_and_again(tables: Tables, scenario: Scenario) -> None:
    """Lineages read right at any depth, and where they are compacted."""
    check_pipeline_scenario(tables, scenario)


# What must hold beside the values.


def call(step: str, label: str, do: str = "call", after: tuple[str, ...] = (), **inputs: Any) -> dict[str, Any]:
    """Write a statement of a program; what the call returns is named like its label."""
    return {
        "do": do, "step": step, "label": label, "inputs": inputs, "after": list(after), "own_id": False,
        "into": label, "catch": False,
    }  # fmt: skip


def program(*body: dict[str, Any]) -> Description:
    return {
        "body": list(body),
        "returns": ["list", [["variable", one["label"]] for one in body if one["do"] == "call"]],
    }


def asked(mode: str, chosen: str = "", **overrides: Any) -> Asked:
    request = {"from_": [f"invocation:{chosen}"]} if chosen else {}
    return Asked(mode, request, Overrides(**overrides), frozenset([chosen] if chosen else []))


CHAIN = program(
    call("mix", "a", first=["input", "z"]),
    call("gather", "b", parts=["variable", "a"]),
    call("gather", "c", parts=["variable", "b"]),
)


def scenario_of(description: Description, *replays: Asked) -> Scenario:
    overrides = Overrides()
    scenario = Scenario(description, run_flow(description, INPUTS, overrides))
    for one in replays:
        overrides = overrides.and_then(one.overrides)
        scenario.replays.append(Replay(one, run_flow(description, INPUTS, overrides)))
    return scenario


def test_a_step_may_come_after_what_it_takes(tables: Tables) -> None:
    """Both are an edge, and one of them has a value (§3)."""
    description = program(
        call("mix", "a", first=["input", "x"]), call("mix", "b", after=("a",), first=["variable", "a"])
    )
    check_flow(tables, scenario_of(description))
    check_pipeline_scenario(tables, Scenario(description, run_pipeline(description, INPUTS, Overrides(), {})))


@pytest.mark.semantics("4", "and as what the flow body receives from that call")
@pytest.mark.parametrize("from_code", [False, True], ids=["server", "code"])
def test_a_step_still_comes_after_what_it_no_longer_takes(tables: Tables, from_code: bool) -> None:
    """An override of its input takes the value away, and not what was declared (§3)."""
    description = program(
        call("mix", "a", first=["input", "x"]),
        call("gather", "b", after=("a",), parts=["variable", "a"]),
        call("count", "c", parts=["variable", "b"]),
    )
    source = run_pipeline(description, INPUTS, Overrides(), {})
    replaced = Overrides(step_inputs={"gather": {"parts": 1}})
    expected = run_pipeline(description, INPUTS, replaced, {})
    again = asked("from", "mix")
    assert planned(expected, again) == {"mix", "gather", "count"}
    kept = Asked("skip", {"skip": ["mix"]}, skipped=frozenset(["mix"]))
    wanted = asked("overrides", step_inputs=replaced.step_inputs), again, kept, again
    replays = [Replay(one, expected, from_code=from_code) for one in wanted]
    check_pipeline_scenario(tables, Scenario(description, source, replays=replays))


@pytest.mark.parametrize("do", ["call", "submit"])
def test_a_body_receives_the_override_of_a_call_that_executes(tables: Tables, do: str) -> None:
    """An override is what the flow body receives from that call (§4), whatever else happens to it."""
    taken = {"do": "take", "future": "a", "into": "a", "catch": False}
    description = program(
        call("mix", "a", do, first=["input", "x"]), *([taken] if do == "submit" else []),
        call("gather", "b", parts=["variable", "a"]),
    ) if do == "call" else {
        "body": [call("mix", "a", do, first=["input", "x"]), taken, call("gather", "b", parts=["variable", "a"])],
        "returns": ["list", [["variable", "a"], ["variable", "b"]]],
    }  # fmt: skip
    check_flow(
        tables, scenario_of(description, asked("from", "mix", checkpoints={"mix": "other"}), asked("everything"))
    )


def test_what_is_overridden_may_execute_after_all(tables: Tables) -> None:
    """Its inputs differ, and the body has received something new (§5, rule 2a)."""
    description = {
        "body": [call("gather", "a", parts=["input", "z"]), call("mix", "b", "submit", first=["variable", "a"])],
        "returns": ["variable", "a"],
    }
    override = asked("overrides", checkpoints={"mix": "other"}, inputs={"z": 7})
    check_flow(tables, scenario_of(description, override, asked("everything")))


@pytest.mark.parametrize(
    "override", [{"checkpoints": {"gather": "other"}}, {"step_inputs": {"gather": {"parts": True}}}]
)
def test_overrides_stay_where_calls_execute_after_all(tables: Tables, override: dict[str, Any]) -> None:
    """Replaying a replay starts from the overridden value (§4), however the call came to execute."""
    description = {
        "body": [
            call("mix", "a", first=["input", "z"]),
            {"do": "compute", "into": "computed", "of": ["variable", "a"]},
            call("gather", "b", parts=["tuple", [["variable", "computed"], ["variable", "a"]]]),
            call("gather", "c", parts=["variable", "b"]),
        ],
        "returns": ["list", [["variable", "b"], ["variable", "c"]]],
    }
    again = asked("overrides", inputs={"z": 8}, checkpoints={"gather_2": "x"})
    check_flow(
        tables,
        scenario_of(description, asked("overrides", **override), again, asked("from", "gather"), asked("everything")),
    )


@pytest.mark.semantics("4", "replaying that replay starts from the overridden value")
@pytest.mark.parametrize("between", [1, DEEPEST_LINEAGE - 2], ids=["near", "compacted"])
def test_overrides_stay_with_calls_that_are_not_made(tables: Tables, between: int) -> None:
    """Replaying a replay starts from the overridden value (§4), also where its body ended before the call."""
    description = {
        "body": [
            call("fragile", "a", parts=["input", "z"]),
            call("mix", "b", "submit", first=["input", "x"]),
            {"do": "take", "future": "b", "into": "b", "catch": False},
            call("gather", "c", parts=["variable", "b"]),
        ],
        "returns": ["list", [["variable", "b"], ["variable", "c"]]],
    }
    failing = next(z for z in range(99) if run_flow(description, {**INPUTS, "z": z}, Overrides()).error)
    assert run_flow(description, INPUTS, Overrides()).error is None
    step_inputs = {"gather": {"parts": True}}
    cut_short = asked("overrides", checkpoints={"mix": "other"}, step_inputs=step_inputs, inputs={"z": failing})
    whole = asked("everything", inputs={"z": "default z"})
    replays = [cut_short, *[asked("everything")] * between, whole, asked("from", "gather"), asked("everything")]
    check_flow(tables, scenario_of(description, *replays))


def test_an_override_of_long_ago_makes_nothing_new(tables: Tables) -> None:
    """In a replay whose lineage has been compacted too, what took it is reused (§5, rule 2)."""
    again = [asked("from", "gather_2") for _ in range(DEEPEST_LINEAGE + 2)]
    check_flow(tables, scenario_of(CHAIN, asked("overrides", checkpoints={"mix": "other"}), *again))


@pytest.mark.parametrize(
    "request_",
    [
        {"from_": "no such step"},
        {"from_": "gather"},
        {"from_": "mix", "expect_plan": "0" * 64},
        {"overrides": {"mix": 1, "checkpoint.nothing": 2}},
        {"step_input_overrides": {"mix": {"nothing": 1}}},
        {"skip": ["gather_2"]},
        {"skip": ["mix", "gather"], "overrides": {"checkpoint.mix": "x"}},
        {"from_": "mix", "overrides": {"checkpoint.mix": UUID(int=5)}},
        {"from_": "mix", "inputs": {"w": 1}},
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [generated_flow, generated_pipeline], ids=["flow", "pipeline"])
def test_a_refused_replay_leaves_no_trace(tables: Tables, kind: Any, request_: dict[str, Any]) -> None:
    """§3; a plan leaves none either."""
    with Client() as client:
        source = finished(client, client.executions.start(kind, CHAIN, x=1))
        before = tables.counts()
        ran.clear()
        with pytest.raises(DalsegnoError):
            client.executions.replay(source, **request_)
        with pytest.raises(DalsegnoError):
            client.executions.plan(source, **request_)
        assert tables.counts() == before
        assert not ran


@pytest.mark.semantics("3", "refuses with StateError if the plan is no longer that one")
def test_an_expected_plan_is_held_to(tables: Tables) -> None:
    """`expect_plan` refuses a plan that is no longer the one that was seen (§3)."""
    with Client() as client:
        source = finished(client, client.executions.start(generated_pipeline, CHAIN, x=1))
        plan = client.executions.plan(source, from_="invocation:gather_2")
        assert client.executions.plan(source, from_="invocation:gather_2").digest == plan.digest
        before = tables.counts()
        assert tables.counts() == before
        with pytest.raises(StateError) as refused:
            client.executions.replay(source, from_="invocation:gather", expect_plan=plan.digest)
        assert plan.digest in str(refused.value.fields) + str(refused.value)
        assert tables.counts() == before
        finished(client, client.executions.replay(source, from_="invocation:gather_2", expect_plan=plan.digest))


@flow
def asking_flow(x: Any) -> Any:
    first = mix("a", x)
    answer = wait(name="go", schema=str)
    return [first, mix("b", answer)]


@pytest.mark.semantics("3", "What a source gets afterwards (an answer, a retry) does not change a replay made before.")
@pytest.mark.semantics("3", "What a source gets afterwards (an answer, a retry) does not change a replay made before.")
def test_an_answer_to_the_source_changes_no_replay(tables: Tables) -> None:
    """What a source gets afterwards does not change a replay made before (§3)."""
    with Client() as client:
        source = asking_flow.run("x")
        waiting(source)
        replay = client.executions.replay(source.exec_id, from_="mix")
        waiting(replay)
        client.executions.input(source.exec_id, value="for the source")
        ended = finished(client, source)
        assert ended.status == "completed"
        assert client.executions.get(replay.exec_id).status == "waiting"
        assert {one.invocation_id for one in client.executions.get(replay.exec_id).checkpoints} == {"mix"}
        client.executions.input(replay.exec_id, value="for the replay")
        result = finished(client, replay).result
        assert result == [ended.result[0], compute("mix", "b", {"first": "for the replay", "second": None})]


@pytest.mark.semantics("3", "What a source gets afterwards (an answer, a retry) does not change a replay made before.")
def test_an_answer_to_a_replay_changes_none_of_its_own(tables: Tables) -> None:
    """A replay that waits has yet to find out what it reuses; its replays see what it showed when they were made."""
    answers = Circumstances(0), Circumstances(1)
    name = next(
        name for name in map("ask{}".format, range(99)) if [number_of(2, one.answer(name)) for one in answers] == [1, 0]
    )
    asks = {"do": "wait", "name": name, "into": "answer"}
    made = {"do": "branch", "of": ["variable", "answer"], "body": [call("gather", "b", parts=["input", "x"])]}
    description = {
        "body": [call("mix", "a", first=["input", "x"]), asks, {**made, "otherwise": []}],
        "returns": ["variable", "b"],
    }
    nothing = Overrides()
    source = run_flow(description, INPUTS, nothing)
    first, second = (run_flow(description, INPUTS, nothing, Circumstances(number, 0)) for number in (1, 2))
    assert set(source.calls) - set(first.calls) == {"gather"}
    first.unmade = second.unmade = {"gather": source.calls["gather"]}
    after = run_flow(description, INPUTS, nothing, Circumstances(1))
    again = Replay(asked("from", "mix"), second, Circumstances(2, 0), source_after=after, goes_on=Circumstances(1))
    replays = [Replay(asked("from", "mix"), first, Circumstances(1, 0)), again]
    check_flow(tables, Scenario(description, source, replays=replays))


@pytest.mark.semantics("5", "where one object could be several outputs (`True`, small integers) all are recorded")
def test_what_took_a_value_that_was_also_of_what_executes_may_execute(tables: Tables) -> None:
    """The flag that is made anew was the same as the one that is taken when it was recorded, and is not any more."""
    answers = Circumstances(0), Circumstances(1)
    label = next(
        label
        for label in map("flag{}".format, range(999))
        if [compute("flag", label, {"parts": one.answer("go")}) for one in answers] == [True, False]
        and compute("flag", f"not {label}", {"parts": 1}) is True
    )
    description = {
        "body": [
            {"do": "wait", "name": "go", "into": "answer"},
            call("flag", f"not {label}", parts=["constant", 1]),
            call("flag", label, parts=["variable", "answer"]),
            call("gather", "taker", parts=["variable", f"not {label}"]),
        ],
        "returns": ["variable", "taker"],
    }
    source, expected = (run_flow(description, INPUTS, Overrides(), one) for one in answers)
    everything = Asked("skip_successful", {"skip_successful_steps": True})
    replay = Replay(everything, expected, answers[1])
    check_flow(tables, Scenario(description, source, answers[0], [replay]))


def waiting(execution: Execution | ExecutionHandle[Any]) -> None:
    """Wait until an execution waits for an answer."""
    with Client() as client:
        while client.executions.get(execution.exec_id).status != "waiting":
            with suppress(TimeoutError):
                client.executions.wait(execution, 0.02)


def test_what_a_replay_reads_from_is_not_deleted(tables: Tables) -> None:
    """It is refused, whatever the distance, and nothing changes; once nobody reads from it any more it goes."""
    with Client() as client:
        source = finished(client, client.executions.start(generated_pipeline, CHAIN, x=1))
        first = finished(client, client.executions.replay(source, from_="invocation:gather_2"))
        second = finished(client, client.executions.replay(first, from_="invocation:gather_2"))
        before, rows = shown(second), tables.counts()
        for one in (source, first):
            with pytest.raises(StateError) as refused:
                client.executions.delete(one)
            assert refused.value.reason == "EXECUTION_IN_USE"
            assert second.name in str(refused.value)
        assert (shown(client.executions.get(second)), tables.counts()) == (before, rows)
        for one in (second, first, source):
            client.executions.delete(one)
            assert not tables.own(one)


@pytest.mark.parametrize("kind", [generated_flow, generated_pipeline], ids=["flow", "pipeline"])
def test_a_replay_with_a_compacted_lineage_outlives_its_sources(tables: Tables, kind: Any) -> None:
    """It has rows of its own for everything, and its sources can be deleted."""
    with Client() as client:
        chain = [finished(client, client.executions.start(kind, CHAIN, x=1))]
        while len(chain) == 1 or tables.lineage_length(chain[-1]) > 1:
            assert tables.lineage_length(chain[-1]) == len(chain) <= DEEPEST_LINEAGE
            chain.append(finished(client, client.executions.replay(chain[-1], from_="invocation:gather_2")))
        *sources, last = chain
        assert len(sources) == DEEPEST_LINEAGE
        before = shown(last)
        for one in reversed(sources):
            client.executions.delete(one)
        assert shown(client.executions.get(last)) == before
        ran.clear()
        again = finished(client, client.executions.replay(last, from_="invocation:gather"))
        assert ran == ["b", "c"]
        assert again.result == last.result
        assert [one.load() for one in again.checkpoints] == last.result
