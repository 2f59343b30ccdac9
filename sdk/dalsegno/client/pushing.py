"""Streams that are sent while they are made: in the caller's own thread, a few messages ahead of the network."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MESSAGES_AHEAD = 4


class Feed(Generic[T]):
    """Hands messages from the thread that makes them to the one that sends them."""

    def __init__(self, ahead: int = MESSAGES_AHEAD) -> None:
        self._ahead = ahead
        self._messages: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, message: T) -> bool:
        """Add a message as soon as there is room; return False where nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._messages) < self._ahead)
            if not self._closed:
                self._messages.append(message)
                self._changed.notify_all()
            return not self._closed

    def close(self) -> None:
        """Say that no more messages come, or that none are taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._messages)
            if not self._messages:
                raise StopIteration
            message = self._messages.popleft()
            self._changed.notify_all()
            return message


def push(start: Callable[[Iterator[T]], Any], messages: Iterable[T]) -> Any:
    """Send messages as they are made, and return the response.

    What `messages` raises cancels the call, so that the other side takes nothing for the whole, and is raised here.

    Args:
        start: Starts the call with what it sends, and returns its future.
        messages: What is sent.

    Raises:
        grpc.RpcError: If the call fails.
    """
    feed: Feed[T] = Feed()
    call = start(feed)
    call.add_done_callback(lambda _: feed.close())
    try:
        for message in messages:
            if not feed.put(message):
                break
    except BaseException:
        call.cancel()
        raise
    finally:
        feed.close()
    return call.result()
