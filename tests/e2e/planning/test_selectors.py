"""SEMANTICS §2: how a request names invocations."""

from __future__ import annotations

import pytest

from dalsegno import Client, Execution
from dalsegno.errors import StateError, UsageError


def roots(client: Client, run: Execution, selector: str | list[str]) -> list[str]:
    return [one.invocation_id for one in client.executions.plan(run, from_=selector).roots]


@pytest.mark.semantics(
    "2",
    "A selector names one invocation of the source execution: its step name, its invocation ID or its call ID.",
    "name:, invocation: and call: in front say which of the three is meant; all:NAME means every invocation",
    "Note what follows: in an execution with work, work_2, work_3, the bare selector work is ambiguous",
)
def test_a_selector_is_a_name_an_invocation_id_or_a_call_id(client: Client, run: Execution) -> None:
    own = run.checkpoints["own"].call_id
    assert roots(client, run, "pair") == roots(client, run, "name:pair") == ["pair"]
    assert roots(client, run, "own") == roots(client, run, "invocation:own") == ["own"]
    assert roots(client, run, own) == roots(client, run, f"call:{own}") == roots(client, run, own.upper()) == ["own"]
    assert roots(client, run, own[-10:]) == roots(client, run, f"call:{own[-10:]}") == ["own"]
    assert roots(client, run, "all:work") == ["work", "work_2", "own"]
    assert roots(client, run, "invocation:work") == ["work"]
    assert roots(client, run, ["own", "invocation:work", "all:gather"]) == ["work", "own", "gather", "gather_2"]


@pytest.mark.semantics("2", "A bare selector is looked up as all three; if that gives more than one invocation")
@pytest.mark.parametrize("selector", ["work", "name:work", "gather"])
def test_an_ambiguous_selector_lists_every_candidate_and_how_to_say_which(
    client: Client, run: Execution, selector: str
) -> None:
    with pytest.raises(StateError) as refused:
        client.executions.plan(run, from_=selector)
    name = selector.removeprefix("name:")
    meant = [one for one in run.checkpoints if one.name == name]
    assert len(meant) > 1
    for one in meant:
        assert f"invocation:{one.invocation_id} (step {name!r}, call:{one.call_id})" in str(refused.value)
    assert f"all:{name} means every one" in str(refused.value)


@pytest.mark.semantics("2", "No match: StateError with the closest names and what is available.")
@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("wrk", "did you mean 'work'"),
        ("name:work_2", "no step name of the execution is 'work_2'"),
        ("invocation:gather_3", "no invocation ID of the execution is 'gather_3'; did you mean 'gather_2'"),
        ("call:00000000-0000-0000-0000-000000000000", "no call ID of the execution"),
        ("all:own", "no step name of the execution is 'own'"),
    ],
)
def test_what_names_nothing_is_told_with_the_closest_names(
    client: Client, run: Execution, selector: str, words: str
) -> None:
    with pytest.raises(StateError) as refused:
        client.executions.plan(run, from_=selector)
    assert words in str(refused.value)
    assert "there are: clean, gather, gather_2, load, own, pair, work, work_2" in str(refused.value)
    with pytest.raises(StateError, match="did you mean"):
        client.executions.plan(run, overrides={"checkpoint.laod": [1]})


@pytest.mark.semantics("2", "Blank: UsageError.")
@pytest.mark.parametrize("selector", ["", "  ", "name:", "invocation: ", "call:", "all:\t"])
def test_a_blank_selector_is_refused(client: Client, run: Execution, selector: str) -> None:
    for request in (
        {"from_": selector},
        {"from_": [selector, "load"]},
        {"skip": [selector]},
        {"overrides": {f"checkpoint.{selector}": 1}},
        {"step_input_overrides": {selector: {"by": 1}}},
    ):
        with pytest.raises(UsageError, match=r"names nothing|selector is missing"):
            client.executions.plan(run, **request)


@pytest.mark.semantics("2", "skip and step_input_overrides take invocation IDs, or all:NAME.")
def test_skip_and_step_inputs_take_invocation_ids_or_all(client: Client, run: Execution) -> None:
    plan = client.executions.plan(run, skip=["load", "all:work"])
    assert [one.invocation_id for one in plan.reused] == ["load", "work", "work_2", "own"]
    plan = client.executions.plan(run, skip=["load", "invocation:work"])
    assert [one.invocation_id for one in plan.reused] == ["load", "work"]
    plan = client.executions.plan(run, step_input_overrides={"all:work": {"by": 3}})
    assert [one.invocation_id for one in plan.roots] == ["work", "work_2", "own"]
    plan = client.executions.plan(run, step_input_overrides={"work": {"by": 3}})
    assert [one.invocation_id for one in plan.roots] == ["work"], "an invocation ID, and not the name of three"
    call = run.checkpoints["load"].call_id
    for other in ("name:load", f"call:{call}", call):
        with pytest.raises(UsageError):
            client.executions.plan(run, skip=[other])
        with pytest.raises(UsageError):
            client.executions.plan(run, step_input_overrides={other: {"path": "x"}})
