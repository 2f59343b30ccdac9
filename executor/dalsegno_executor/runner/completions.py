"""In which order `as_completed` gives a body the futures of its calls.

The first time it is the order in which the calls end. What comes first decides what the body does next, so that order
is recorded: the k-th future that the body is given for the first time is at place k. Every later run of the body is
given the recorded ones in the order of their places, whichever ends first this time, and the others after them.

A choice is always the one of the lowest place among those left, in the first run as in every later one. Two loops
that share futures therefore need no record of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping

from dalsegno.v1.executor_service_pb2 import Yield


class Order:
    """Numbers of calls, each at the place at which it came first."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._numbers: list[int] = []
        self._places: dict[int, int] = {}
        for number in numbers:
            self.add(number)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int) -> int | None:
        """Append a number, and return its place, from 1; None where it has one already."""
        if number in self._places:
            return None
        self._numbers.append(number)
        self._places[number] = len(self._numbers)
        return len(self._numbers)

    def among(self, wanted: Iterable[int]) -> Iterator[int | None]:
        """Yield those that are wanted, in order, and None as often as there is no further one yet."""
        known = deque(sorted((one for one in wanted if one in self._places), key=self._places.__getitem__))
        following = len(self._numbers)
        while True:
            if known:
                yield known.popleft()
            elif following < len(self._numbers):
                following += 1
                yield self._numbers[following - 1]
            else:
                yield None


class First:
    """The first number of an order that is still left."""

    def __init__(self, order: Order, wanted: Iterable[int]) -> None:
        self._numbers = order.among(wanted)
        self._first: int | None = None

    def of(self, left: Container[int]) -> int | None:
        """Return it, if there is one by now."""
        while self._first is None or self._first not in left:
            self._first = next(self._numbers)
            if self._first is None:
                return None
        return self._first


class Completions:
    """The order in which one run of a body is given futures.

    Args:
        recorded: The place of each call that has one on record.
        ended: Calls in the order of their ends, as far as the body can know them.
    """

    def __init__(self, recorded: Mapping[int, int], ended: Order) -> None:
        self._recorded = Order(sorted(recorded, key=recorded.__getitem__))
        self._at_place = {place: number for number, place in recorded.items()}
        self._ended = ended
        self._given = Order()
        self._new: list[tuple[int, int]] = []

    def choices(self, wanted: Iterable[int]) -> Iterator[int | None]:
        """Yield which call comes next, until all have; None where that depends on which of them ends next.

        A call that is yielded has not necessarily ended: it is to be waited for.
        """
        left = dict.fromkeys(wanted)
        orders = [First(order, left) for order in (self._given, self._recorded, self._ended)]
        while left:
            choice = next((one for one in (order.of(left) for order in orders) if one is not None), None)
            yield choice
            if choice is not None:
                del left[choice]

    def give(self, number: int) -> None:
        """Note that the body is given the future of a call."""
        place = self._given.add(number)
        if place is not None and self._at_place.get(place) != number:
            self._new.append((place, number))

    def unrecorded(self) -> list[Yield]:
        """Return what is not on record, and has not been reported."""
        return [Yield(place=place, number=number) for place, number in self._new]

    def reported(self) -> None:
        """Note that what was not on record has been reported."""
        self._new.clear()
