"""The object store as a runner reads it: many objects at once, and none twice that is still at hand."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeAlias

from dalsegno.object_store import ObjectStore
from dalsegno.payloads import from_payload
from dalsegno.v1.value_pb2 import Payload

CAPACITY = 64 * 1024 * 1024
"""Bytes, as stored: some values that many steps share, and little beside what a runner with user code takes anyway."""
_LARGEST_SHARE = 4
"""What is larger than this part of the capacity is not kept: it would drive out everything else."""
_AT_ONCE = 16
"""Gets of one step: a store's latency is to be waited for once, and few steps have more inputs that are large."""

_Get: TypeAlias = Future[bytes]


class ObjectCache:
    """An object store that keeps what was last read and written, as bytes; the least recently used goes first.

    Keys are made of the content, so what is kept is never stale. Any thread may use it; what several want at the same
    time is got once, and where that fails each of them is told. Failures are not kept.

    Args:
        store: Has the objects.
        capacity: Bytes to keep, at most.
    """

    def __init__(self, store: ObjectStore, capacity: int = CAPACITY) -> None:
        self._store = store
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._under_way: dict[str, _Get] = {}

    def get(self, key: str) -> bytes:
        """Return the content, as the store does."""
        return self.start([key])[key].result()

    def put(self, key: str, data: bytes) -> None:
        """Store the content, as the store does; whoever takes it next is often here."""
        self._store.put(key, data)
        with self._lock:
            self._keep(key, data)

    def start(self, keys: Iterable[str]) -> dict[str, _Get]:
        """Begin to get objects: one in this thread, the others in threads that end when they have them.

        So there is no thread where there is one object to get, and nothing to close. As daemons they do not keep a
        script that ends waiting for its store.
        """
        gets: dict[str, _Get] = {}
        own: deque[tuple[str, _Get]] = deque()
        for key in keys:
            if key not in gets:
                gets[key], is_own = self._claim(key)
                if is_own:
                    own.append((key, gets[key]))
        if own:
            first = own.popleft()
            started = self._start_threads(own)
            self._make(*first)
            if not started:
                self._work_off(own)
        return gets

    def _start_threads(self, own: deque[tuple[str, _Get]]) -> bool:
        """Start as many threads as there is use for; return False if none is to be had."""
        started = False
        with suppress(RuntimeError):
            for _ in range(min(len(own), _AT_ONCE - 1)):
                threading.Thread(target=self._work_off, args=(own,), name="objects", daemon=True).start()
                started = True
        return started

    def _claim(self, key: str) -> tuple[_Get, bool]:
        """Return the get of a key, and whether the caller has to make it."""
        with self._lock:
            under_way = self._under_way.get(key)
            if under_way is not None:
                return under_way, False
            get: _Get = Future()
            data = self._kept.get(key)
            if data is None:
                self._under_way[key] = get
                return get, True
            self._kept.move_to_end(key)
            get.set_result(data)
            return get, False

    def _work_off(self, own: deque[tuple[str, _Get]]) -> None:
        while True:
            try:
                key, get = own.popleft()
            except IndexError:
                return
            self._make(key, get)

    def _make(self, key: str, get: _Get) -> None:
        try:
            data = self._store.get(key)
        except BaseException as error:  # noqa: BLE001 - raised again in every thread that waits for it
            with self._lock:
                del self._under_way[key]
            get.set_exception(error)
        else:
            with self._lock:
                del self._under_way[key]
                self._keep(key, data)
            get.set_result(data)

    def _keep(self, key: str, data: bytes) -> None:
        if key in self._kept or len(data) > self._capacity // _LARGEST_SHARE:
            return
        self._kept[key] = data
        self._size += len(data)
        while self._size > self._capacity:
            _, gone = self._kept.popitem(last=False)
            self._size -= len(gone)


class Prefetched:
    """The objects of values that are read together: where the first is needed, all are got at once.

    Args:
        cache: Gets them.
        keys: Returns their keys; not called where no object is needed. Empty ones are those of values that are in none.
    """

    __slots__ = ("_cache", "_gets", "_keys")

    def __init__(self, cache: ObjectCache, keys: Callable[[], Iterable[str]]) -> None:
        self._cache = cache
        self._keys = keys
        self._gets: dict[str, _Get] | None = None

    def read(self, payload: Payload) -> Any:
        """Return a value, a new object at every call."""
        return from_payload(payload, self)

    def get(self, key: str) -> bytes:
        """Return the content, as the store does."""
        if self._gets is None:
            self._gets = self._cache.start(filter(None, self._keys()))
        # Let go of when it is read, so that large inputs are not all in memory twice.
        get = self._gets.pop(key, None)
        return get.result() if get is not None else self._cache.get(key)
