"""Streams that are sent while they are made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from dalsegno.client.pushing import Feed, push


class Call(Future[list[int]]):
    """A call that takes everything in a thread of its own."""

    def __init__(self, messages: Iterator[int], take: int | None = None) -> None:
        super().__init__()
        self.taken: list[int] = []
        self.ended = threading.Event()
        threading.Thread(target=self._take, args=(messages, take)).start()

    def _take(self, messages: Iterator[int], take: int | None) -> None:
        for message in messages:
            self.taken.append(message)
            if len(self.taken) == take:
                self.set_exception(ConnectionError("enough"))
                return
        self.ended.set()
        if not self.cancelled():
            self.set_result(self.taken)


def starting(calls: list[Call], take: int | None = None) -> Callable[[Iterator[int]], Call]:
    def start(messages: Iterator[int]) -> Call:
        calls.append(Call(messages, take))
        return calls[-1]

    return start


def test_all_messages_arrive_in_order() -> None:
    assert push(starting([]), range(100)) == list(range(100))


def test_no_more_than_a_few_are_made_ahead() -> None:
    feed: Feed[int] = Feed(ahead=2)
    made: list[int] = []

    def make() -> None:
        for number in range(5):
            made.append(number)
            feed.put(number)
        feed.close()

    maker = threading.Thread(target=make)
    maker.start()
    assert next(feed) == 0
    assert len(made) <= 4  # one taken, two waiting, one that has no room
    assert list(feed) == [1, 2, 3, 4]
    maker.join()


def test_messages_are_made_in_the_callers_thread() -> None:
    def messages() -> Iterator[int]:
        yield threading.get_ident()

    assert push(starting([]), messages()) == [threading.get_ident()]


def test_what_the_messages_raise_cancels_the_call() -> None:
    calls: list[Call] = []

    def messages() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        push(starting(calls), messages())
    assert calls[0].cancelled()
    assert calls[0].ended.wait(20)


def test_a_call_that_fails_early_ends_the_making() -> None:
    made: list[int] = []

    def messages() -> Iterator[int]:
        for number in range(1_000_000):
            made.append(number)
            yield number

    with pytest.raises(ConnectionError):
        push(starting([], take=3), messages())
    assert len(made) < 100
