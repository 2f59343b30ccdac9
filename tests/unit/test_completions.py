"""The order in which a body is given futures: as their calls end at first, and as recorded ever after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno_executor.runner.completions import Completions, Order


class Run:
    """One run of a body, in which calls end in a given order, the next one where the body has nothing to go on with."""

    def __init__(self, ends: Sequence[int], recorded: Mapping[int, int] = {}) -> None:
        self._ends = iter(ends)
        self._ended = Order()
        self.completions = Completions(recorded, self._ended)

    def end(self, count: int = 1) -> None:
        """Let the next calls end."""
        for _ in range(count):
            self._ended.add(next(self._ends))

    def given(self, wanted: Iterable[int]) -> list[int]:
        """What a loop over these is given."""
        numbers = []
        for choice in self.completions.choices(wanted):
            if choice is None:
                self.end()
            else:
                self.completions.give(choice)
                numbers.append(choice)
        return numbers

    def record(self) -> dict[int, int]:
        """The place of each call, where there was no record before."""
        return {one.number: one.place for one in self.completions.unrecorded()}


@pytest.mark.semantics("5", "dalsegno.as_completed records the order in which it yields, so that it repeats.")
def test_the_first_order_is_that_of_the_ends_and_then_it_repeats() -> None:
    first = Run([3, 1, 2])
    assert first.given([1, 2, 3]) == [3, 1, 2]
    assert first.record() == {3: 1, 1: 2, 2: 3}
    again = Run([2, 1, 3], first.record())
    again.end(3)
    assert again.given([1, 2, 3]) == [3, 1, 2]
    assert again.record() == {}


def test_what_is_recorded_goes_before_what_is_not() -> None:
    run = Run([1, 2, 3, 4], {3: 1})
    run.end(4)
    assert run.given([1, 2, 3, 4]) == [3, 1, 2, 4]
    assert run.record() == {1: 2, 2: 3, 4: 4}


def test_a_future_that_the_body_was_given_before_comes_first() -> None:
    run = Run([2, 1, 3])
    assert run.given([1, 2]) == [2, 1]
    run.end()
    assert run.given([3, 1, 2]) == [2, 1, 3]


def test_a_place_that_another_call_takes_is_recorded_anew() -> None:
    run = Run([7, 8], {1: 1, 2: 2})
    assert run.given([7]) == [7]
    assert run.given([1, 2]) == [1, 2]
    assert run.record() == {7: 1, 1: 2, 2: 3}


def test_what_is_reported_is_not_reported_again() -> None:
    run = Run([1, 2])
    run.given([1])
    run.completions.reported()
    run.given([2])
    assert [(one.place, one.number) for one in run.completions.unrecorded()] == [(2, 2)]


@given(st.integers(1, 8), st.data())
def test_interleaved_loops_repeat_however_the_calls_end(count: int, data: st.DataObject) -> None:
    """Several loops over parts of the futures, taken from in turns: the record of the first run fixes the second."""
    numbers = list(range(count))
    loops = data.draw(st.lists(st.lists(st.sampled_from(numbers), min_size=1, unique=True), min_size=1, max_size=3))
    turns = data.draw(st.lists(st.integers(0, len(loops) - 1), max_size=20))

    def interleaved(run: Run) -> list[tuple[int, int]]:
        choices = [run.completions.choices(loop) for loop in loops]
        found = []
        for turn in turns:
            choice = next((one for one in choices[turn] if one is not None or run.end()), None)  # type: ignore[func-returns-value]
            if choice is not None:
                run.completions.give(choice)
                found.append((turn, choice))
        return found

    first = Run(data.draw(st.permutations(numbers)))
    expected = interleaved(first)
    again = Run(data.draw(st.permutations(numbers)), first.record())
    again.end(data.draw(st.integers(0, count)))
    assert interleaved(again) == expected
    assert again.record() == {}
