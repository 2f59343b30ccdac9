"""Overrides: their keys, and which outputs can be overridden."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno_planner.core.overrides import Overridable, check_names, check_overridable, parse_override_key
from dalsegno_planner.core.problems import Problem, ProblemKind
from dalsegno_planner.core.selectors import Selector, SelectorKind


def refused(key: str) -> Problem:
    found = parse_override_key(key)
    assert isinstance(found, Problem)
    assert found.kind is ProblemKind.USAGE
    assert found.field == f'overrides["{key}"]'
    return found


def test_a_key_has_a_selector_of_any_form() -> None:
    found = parse_override_key("checkpoint.invocation:work_2")
    assert isinstance(found, Selector)
    assert (found.kind, found.value) == (SelectorKind.INVOCATION, "work_2")


def test_a_key_without_checkpoint_says_how_to_write_it() -> None:
    assert "checkpoint.research" in refused("research").description


def test_waits_cannot_be_overridden_and_the_error_says_how_to_answer_one() -> None:
    told = refused("wait.approve").description
    assert "cannot be overridden" in told
    assert "executions.input" in told


@pytest.mark.parametrize("key", ["checkpoint.", "checkpoint.  "])
def test_checkpoint_alone_lacks_a_selector(key: str) -> None:
    assert "selector is missing" in refused(key).description


def overridable(**changes: Any) -> Overridable:
    plain: dict[str, Any] = {
        "invocation_id": "research",
        "is_wait": False,
        "outputs": frozenset({"output"}),
        "has_consumer": True,
    }
    return Overridable(**(plain | changes))


def test_one_output_with_a_consumer_can_be_overridden() -> None:
    assert check_overridable(overridable(), "checkpoint.research") == []
    assert check_overridable(overridable(outputs=frozenset()), "checkpoint.research") == []


def test_several_outputs_are_a_usage_problem_and_no_consumer_one_of_state() -> None:
    found = check_overridable(overridable(outputs=frozenset({"a", "b"}), has_consumer=False), "checkpoint.research")
    assert [problem.kind for problem in found] == [ProblemKind.USAGE, ProblemKind.STATE]
    assert "a, b" in found[0].description


def test_a_selected_wait_cannot_be_overridden() -> None:
    (problem,) = check_overridable(overridable(is_wait=True), "checkpoint.approve")
    assert problem.reason == "WAIT_OVERRIDE"


def test_unknown_names_come_with_the_closest() -> None:
    (problem,) = check_names(["tpoic"], ["topic", "lr"], "draft has no input", {"tpoic": 'inputs["tpoic"]'})
    assert problem.description == "draft has no input 'tpoic'; did you mean 'topic'? there are: lr, topic"
    assert problem.field == 'inputs["tpoic"]'
