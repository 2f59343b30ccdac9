"""The rules of the replay plan, against the oracle on random graphs and against cases written by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.graph import Graph, Node
from dalsegno_planner.core.ids import InvocationId, Number
from dalsegno_planner.core.plan import (
    Choice,
    Mode,
    Reason,
    RootReason,
    check_roots_not_skipped,
    check_skipped,
    decide,
    digest,
    find_roots,
)
from dalsegno_planner.core.problems import Problem
from tests.unit.plan_oracle import Expected, Request, Step, expected_plan, graphs, requests
from tests.unit.real_graphs import MODES, NAMES, real_request, real_steps, with_a_past

CASES = json.loads((Path(__file__).parent / "cases" / "plans.json").read_text())


def graph_of(steps: list[Step]) -> tuple[Graph, dict[str, Number]]:
    numbers = {step.id: Number(place) for place, step in enumerate(steps, start=1)}
    nodes = [
        Node(
            number=numbers[step.id],
            invocation_id=InvocationId(step.id),
            name=step.name,
            takes=frozenset(numbers[one] for one in step.takes),
            after=frozenset(numbers[one] for one in step.after),
            succeeded=step.succeeded,
            overridden=step.overridden,
            reads_inputs=step.reads,
        )
        for step in steps
    ]
    return Graph.of(nodes), numbers


def planned(steps: list[Step], request: Request) -> Expected:
    graph, numbers = graph_of(steps)
    ids = {number: one for one, number in numbers.items()}
    choice = Choice(
        mode=Mode(request.mode),
        chosen={numbers[one]: one for one in request.chosen},
        kept=frozenset(numbers[one] for one in request.skipped),
        overridden={numbers[one]: f"checkpoint.{one}" for one in request.overridden},
        step_inputs={numbers[one]: one for one in request.step_inputs},
        changed=frozenset(numbers[one.id] for one in steps if one.changed and request.rerun_changed_code),
        touching_inputs=request.inputs if request.mode == "skip_successful" else frozenset(),
    )
    if problems(graph, choice):
        return Expected(refused=True)
    decision = decide(graph, choice)
    roots = {ids[number]: {str(one.reason) for one in why} for number, why in decision.roots.items()}
    return Expected(roots, {ids[number] for number in decision.affected})


def problems(graph: Graph, choice: Choice) -> list[Problem]:
    names = {node.number: str(node.invocation_id) for node in graph.nodes.values()}
    kept = [graph.nodes[number] for number in choice.kept]
    return check_skipped(kept, names) + check_roots_not_skipped(
        {number: names[number] for number in choice.kept}, find_roots(graph, choice)
    )


@pytest.mark.semantics(
    "3",
    "Affected = roots ∪ all their descendants, over every edge.",
    "Nothing affected is ever reused",
    "each from_ selector",
    "every direct consumer of that invocation's output",
    "each invocation with an entry in step_input_overrides",
    "each invocation whose step's code differs from the code that was recorded",
)
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_plans_are_those_of_the_oracle(data: st.DataObject) -> None:
    steps = data.draw(graphs())
    request = data.draw(requests(steps))
    assert planned(steps, request) == expected_plan(steps, request)


@pytest.mark.parametrize("name", NAMES)
def test_plans_of_real_graphs_are_those_of_the_oracle(name: str) -> None:
    chance = random.Random(name)
    healthy = real_steps(name)
    for steps in (healthy, with_a_past(healthy, chance)):
        for mode in MODES * (4 if len(steps) < 1000 else 1):
            request = real_request(steps, mode, chance)
            assert planned(steps, request) == expected_plan(steps, request)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_downstream_of_what_re_executes_is_reused(data: st.DataObject) -> None:
    steps = data.draw(graphs())
    request = data.draw(requests(steps))
    found = planned(steps, request)
    for step in steps:
        if (step.takes | step.after) & found.affected:
            assert step.id in found.affected


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: Mapping[str, Any]) -> None:
    steps = [_step(one) for one in case["steps"]]
    request = _request(case["request"])
    found = planned(steps, request)
    expected = case["expected"]
    if expected == "refused":
        assert found.refused
        return
    assert found.roots == {one: set(why) for one, why in expected["roots"].items()}
    assert found.affected == set(expected["affected"])
    assert found == expected_plan(steps, request)


def test_an_overridden_checkpoint_that_failed_is_no_root() -> None:
    steps = [Step("a", "a", succeeded=False), Step("b", "b", takes=frozenset("a"), succeeded=False)]
    found = planned(steps, Request("overrides", overridden=frozenset("a")))
    assert found.affected == {"b"}
    assert found.roots == {"b": {"checkpoint_override", "not_completed"}}


def test_what_cannot_be_skipped_is_told_with_the_reason() -> None:
    graph, numbers = graph_of(
        [
            Step("load", "load"),
            Step("fit", "fit", takes=frozenset({"load"})),
            Step("test", "test", succeeded=False),
        ]
    )
    kept = [graph.nodes[numbers["fit"]], graph.nodes[numbers["test"]]]
    names = {node.number: str(node.invocation_id) for node in graph.nodes.values()}
    told = [problem.description for problem in check_skipped(kept, names)]
    assert told == [
        "fit cannot be skipped: it comes after load, which is not skipped",
        "test cannot be skipped: it did not succeed in the execution that is replayed, so there is nothing to reuse",
    ]


def test_a_wait_cannot_be_skipped() -> None:
    wait = Node(Number(1), InvocationId("approve"), "approve", kind=InvocationKind.WAIT)
    (problem,) = check_skipped([wait], {})
    assert "always asked again" in problem.description


def test_an_override_of_what_is_skipped_is_refused_with_its_key() -> None:
    reasons = {Number(1): [Reason(RootReason.CHECKPOINT_OVERRIDE, "checkpoint.load")]}
    (problem,) = check_roots_not_skipped({Number(1): "fit"}, reasons)
    assert "'checkpoint.load' overrides" in problem.description


def test_the_digest_of_a_plan_depends_on_its_facts_alone() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest({})) == 64


def _request(case: Mapping[str, Any]) -> Request:
    sets = ("chosen", "skipped", "overridden", "step_inputs", "inputs")
    asked: dict[str, Any] = {key: frozenset(value) if key in sets else value for key, value in case.items()}
    return Request(**asked)


def _step(case: Mapping[str, Any]) -> Step:
    sets = ("takes", "after", "reads")
    recorded: dict[str, Any] = {key: frozenset(value) if key in sets else value for key, value in case.items()}
    return Step(**{"name": case["id"], **recorded})
