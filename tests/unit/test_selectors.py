"""Selectors: what each form means, and what is said where it means nothing or too much."""

from __future__ import annotations

from uuid import UUID

import pytest

from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.ids import InvocationId, Number, call_id, execution_id
from dalsegno_planner.core.problems import Problem, ProblemKind
from dalsegno_planner.core.selectors import (
    Candidate,
    Selector,
    SelectorKind,
    no_match,
    parse_exact,
    parse_selector,
    select,
    unknown_invocation,
)

EXECUTION = execution_id(1_700_000_000_000, 7)


def candidate(number: int, invocation_id: str, name: str) -> Candidate:
    call = call_id(EXECUTION, number)
    return Candidate(Number(number), InvocationId(invocation_id), name, InvocationKind.STEP, call)


WORK = [candidate(1, "work", "work"), candidate(2, "work_2", "work"), candidate(3, "work_3", "work")]
GRAPH = [*WORK, candidate(4, "train", "train"), candidate(5, "final", "train")]


def parsed(text: str) -> Selector:
    found = parse_selector(text, "from")
    assert isinstance(found, Selector)
    return found


def numbers(text: str) -> list[int] | str:
    found = select(parsed(text), GRAPH, "from")
    return found.description if isinstance(found, Problem) else [one.number for one in found]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("train", SelectorKind.ANY, "train"),
        ("name:train", SelectorKind.NAME, "train"),
        ("invocation:train_2", SelectorKind.INVOCATION, "train_2"),
        ("call:0190", SelectorKind.CALL, "0190"),
        ("all:train", SelectorKind.ALL, "train"),
        ("  train ", SelectorKind.ANY, "train"),
        ("names:train", SelectorKind.ANY, "names:train"),
    ],
)
def test_forms(text: str, kind: SelectorKind, value: str) -> None:
    assert (parsed(text).kind, parsed(text).value) == (kind, value)


@pytest.mark.parametrize("text", ["", "  ", "name:", "all: ", "invocation:", "call:"])
def test_blank_selectors_are_a_usage_problem(text: str) -> None:
    found = parse_selector(text, "from")
    assert isinstance(found, Problem)
    assert (found.kind, found.reason) == (ProblemKind.USAGE, "BLANK_SELECTOR")


def test_a_bare_selector_is_looked_up_as_name_invocation_id_and_call_id() -> None:
    assert numbers("final") == [5]
    assert numbers("work_2") == [2]
    assert numbers(str(call_id(EXECUTION, 4))) == [4]
    assert numbers(str(call_id(EXECUTION, 4)).upper()) == [4]


def test_a_bare_name_of_several_calls_is_ambiguous_though_one_has_that_invocation_id() -> None:
    told = numbers("work")
    assert isinstance(told, str)
    for one in WORK:
        assert f"invocation:{one.invocation_id}" in told
        assert f"call:{one.call_id}" in told
    assert "all:work" in told
    assert numbers("invocation:work") == [1]


def test_an_invocation_id_that_is_another_step_s_name_is_ambiguous() -> None:
    graph = [candidate(1, "b", "a"), candidate(2, "b_2", "b")]
    found = select(parsed("b"), graph, "from")
    assert isinstance(found, Problem)
    assert (found.kind, found.reason) == (ProblemKind.STATE, "AMBIGUOUS_SELECTOR")
    assert "all:b" not in found.description


def test_prefixes_say_which_is_meant() -> None:
    assert numbers("name:final") == []
    assert numbers("invocation:final") == [5]
    assert numbers(f"call:{call_id(EXECUTION, 5)}") == [5]
    assert numbers("all:work") == [1, 2, 3]
    assert numbers("call:work") == []


def test_a_call_id_of_another_execution_matches_nothing() -> None:
    other = execution_id(1_700_000_000_001, 8)
    assert numbers(f"call:{call_id(other, 1)}") == []
    assert numbers(f"call:{UUID(int=0)}") == []


def test_no_match_names_the_closest_and_what_there_is() -> None:
    problem = no_match(parsed("trian"), ["train", "load"], "from")
    assert problem.kind is ProblemKind.STATE
    assert "did you mean 'train'?" in problem.description
    assert "load, train" in problem.description
    assert unknown_invocation(parsed("x"), [], "skip").kind is ProblemKind.USAGE


@pytest.mark.parametrize("text", ["name:train", "call:0190"])
def test_exact_names_are_invocation_ids_or_all(text: str) -> None:
    found = parse_exact(text, "skip")
    assert isinstance(found, Problem)
    assert found.kind is ProblemKind.USAGE


def test_an_exact_name_is_never_a_step_name() -> None:
    found = parse_exact("work", "skip")
    assert isinstance(found, Selector)
    chosen = select(found, GRAPH, "skip")
    assert not isinstance(chosen, Problem)
    assert [one.number for one in chosen] == [1]


@pytest.mark.semantics("1", "can be shortened to any unique prefix or suffix")
def test_a_call_id_can_be_shortened_to_what_no_other_call_has() -> None:
    ids = [one.call_id.hex for one in GRAPH]
    for number, digits in enumerate(ids, start=1):
        other = [one for one in ids if one != digits]
        prefix = next(
            digits[:size] for size in range(22, 33) if not any(one.startswith(digits[:size]) for one in other)
        )
        assert numbers(f"call:{prefix}") == numbers(digits[-10:]) == [number]
        assert numbers(str(UUID(digits))[-13:]) == [number], "with its dash"
    assert "is ambiguous" in str(numbers(ids[0][:8])), "all calls of an execution begin alike"
    assert numbers(f"name:{ids[0][-10:]}") == []
    assert numbers(ids[0][-3:]) == [], "too short to mean anything"


def test_a_name_that_looks_like_part_of_a_call_id_is_a_name() -> None:
    named = candidate(6, GRAPH[0].call_id.hex[-6:], "other")
    found = select(parsed(named.invocation_id), [*GRAPH, named], "from")
    assert not isinstance(found, Problem)
    assert [one.number for one in found] == [6]
