"""How a runner reads the object store: what is kept, what is got at once, and what is said of what is not to be had."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dalsegno import flow, step
from dalsegno.errors import BackendError, NotFoundError
from dalsegno.object_store import UrlObjectStore, object_key
from dalsegno.payloads import from_payload, referenced_payload
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_BACKEND
from dalsegno.v1.executor_service_pb2 import UpstreamOutputs, Welcome
from dalsegno.v1.value_pb2 import (
    Binding,
    BindingEntry,
    BindingList,
    BindingMap,
    FlowInputs,
    Inputs,
    Output,
    OutputRef,
    Outputs,
    Payload,
)
from dalsegno.values import checksum, encode
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.objects import ObjectCache
from dalsegno_executor.runner.resolve import Resolver
from tests.unit.executor_side import SECONDS, body_task, embedded, payload, step_task


class WatchedStore(UrlObjectStore):
    """A store of files that counts its gets, and does something before each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self.gets: Counter[str] = Counter()
        self.before_get: Callable[[], object] = lambda: None

    def get(self, key: str) -> bytes:
        self.gets[key] += 1
        self.before_get()
        return super().get(key)

    def add(self, data: bytes) -> str:
        """Store an object, and return its key."""
        key = object_key(checksum(data))
        self.put(key, data)
        return key

    def add_value(self, value: object) -> Payload:
        """Store a value, and return its payload."""
        encoded = encode(value)
        self.put(object_key(encoded.checksum), encoded.data)
        return referenced_payload(encoded)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path)


@pytest.fixture
def meeting() -> Iterator[Callable[[int], threading.Barrier]]:
    """Barriers that are broken when the test ends, whatever waits for them."""
    barriers: list[threading.Barrier] = []

    def meet(parties: int) -> threading.Barrier:
        barriers.append(threading.Barrier(parties, timeout=SECONDS))
        return barriers[-1]

    yield meet
    for barrier in barriers:
        barrier.abort()


def resolved(store: WatchedStore, **bindings: Binding) -> dict[str, object]:
    """What a step gets, from a runner that has read nothing before."""
    return Resolver(Environment(store=ObjectCache(store)), (), FlowInputs()).arguments(Inputs(bindings=bindings))


# What is kept.


def test_an_object_in_four_inputs_of_three_steps_is_got_once(store: WatchedStore) -> None:
    value = store.add_value(["shared"])
    environment = Environment(store=ObjectCache(store))
    upstream = [UpstreamOutputs(number=1, outputs=Outputs(outputs=[Output(name="output", payload=value)]))]
    bindings = {
        "plain": Binding(value=value),
        "output": Binding(output=OutputRef(number=1, output="output")),
        "flow_input": Binding(flow_input="topic"),
        "nested": Binding(list=BindingList(items=[Binding(value=value)])),
    }
    seen = []
    for _ in range(3):
        resolver = Resolver(environment, upstream, FlowInputs(values={"topic": value}))
        arguments = resolver.arguments(Inputs(bindings=bindings))
        assert arguments == {name: [["shared"]] if name == "nested" else ["shared"] for name in bindings}
        seen += [id(one) for one in arguments.values()]
    assert list(store.gets.values()) == [1]
    assert len(set(seen[-4:])) == 4, "each is an object of its own"


def test_the_least_recently_used_goes_first(store: WatchedStore) -> None:
    cache = ObjectCache(store, capacity=40)
    first, *others = (store.add(bytes([number]) * 10) for number in range(6))
    for key in others[:3]:
        cache.get(first)
        cache.get(key)
    assert (store.gets[first], store.gets.total()) == (1, 4)
    cache.get(others[3])
    for key in (first, *others[1:4]):
        cache.get(key)
    assert store.gets.total() == 5, "four of ten bytes are kept"
    cache.get(others[0])
    assert store.gets[others[0]] == 2


def test_an_object_that_would_drive_out_the_others_is_not_kept(store: WatchedStore) -> None:
    cache = ObjectCache(store, capacity=40)
    small, large = store.add(b"s" * 10), store.add(b"l" * 11)
    for _ in range(2):
        assert (cache.get(small), cache.get(large)) == (b"s" * 10, b"l" * 11)
    assert (store.gets[small], store.gets[large]) == (1, 2)


def test_what_is_written_is_kept_and_always_written(store: WatchedStore, tmp_path: Path) -> None:
    cache = ObjectCache(store)
    key = object_key(checksum(b"data"))
    cache.put(key, b"data")
    assert cache.get(key) == b"data"
    assert not store.gets
    (tmp_path / key).unlink()
    cache.put(key, b"data")
    assert (tmp_path / key).read_bytes() == b"data"


def test_a_runner_keeps_what_it_has_when_its_planner_welcomes_it_again(tmp_path: Path) -> None:
    @step
    def echo(value: str) -> str:
        return value

    ours, another = (Welcome(object_store_url=(tmp_path / name).as_uri(), inline_limit=100) for name in "ab")
    value = WatchedStore(tmp_path / "a").add_value("x" * 500)
    task = step_task(echo)
    task.step.inputs.bindings["value"].value.CopyFrom(value)
    with embedded(echo) as talk:
        talk.tell(welcome=ours)
        talk.give(task)
        assert talk.report().completed.outputs.outputs[0].payload.object_key == value.object_key
        (tmp_path / "a" / value.object_key).unlink()
        talk.tell(welcome=ours)
        talk.give(task)
        assert talk.report().HasField("completed")
        talk.tell(welcome=another)
        talk.give(task)
        assert talk.report().failed.failure.reason == "OBJECT_NOT_FOUND"


# What is got at once.


@pytest.mark.parametrize("count", [2, 8])
def test_the_inputs_of_a_step_are_got_at_once(
    store: WatchedStore, meeting: Callable[[int], threading.Barrier], count: int
) -> None:
    values = [store.add_value(f"value {number}") for number in range(count)]
    store.before_get = meeting(count).wait
    entries = [BindingEntry(encoded=values[1], value=Binding(value=values[0]))]
    arguments = resolved(
        store,
        small=Binding(value=payload("small")),
        map=Binding(map=BindingMap(entries=entries)),
        items=Binding(tuple=BindingList(items=[Binding(value=value) for value in values])),
    )
    assert arguments == {
        "small": "small",
        "map": {"value 1": "value 0"},
        "items": tuple(f"value {number}" for number in range(count)),
    }


def test_the_inputs_of_a_flow_are_got_at_once(
    store: WatchedStore, meeting: Callable[[int], threading.Barrier], monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def both(first: str, second: str) -> str:
        return first + second

    task = body_task(both)
    for name in ("first", "second"):
        task.body.inputs.values[name].CopyFrom(store.add_value(name))
    store.before_get = meeting(2).wait
    monkeypatch.setattr("dalsegno_executor.runner.environment.UrlObjectStore", lambda url: store)
    with embedded(both) as talk:
        talk.tell(welcome=Welcome(object_store_url=store.url))
        talk.give(task)
        assert from_payload(talk.report().returned.result, None) == "firstsecond"


def test_more_inputs_than_threads_are_all_got(store: WatchedStore) -> None:
    values = [store.add_value(number) for number in range(100)]
    arguments = resolved(store, items=Binding(list=BindingList(items=[Binding(value=value) for value in values])))
    assert arguments == {"items": list(range(100))}
    assert set(store.gets.values()) == {1}


def test_one_object_needs_no_thread(store: WatchedStore) -> None:
    by: list[threading.Thread] = []
    store.before_get = lambda: by.append(threading.current_thread())
    value = store.add_value("one")
    assert resolved(store, a=Binding(value=value), b=Binding(value=value), c=Binding(value=payload("small"))) == {
        "a": "one",
        "b": "one",
        "c": "small",
    }
    assert by == [threading.current_thread()]


def test_without_a_thread_to_be_had_one_gets_all(store: WatchedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    values = [store.add_value(number) for number in range(3)]
    items = [Binding(value=value) for value in values]
    assert resolved(store, items=Binding(list=BindingList(items=items))) == {"items": [0, 1, 2]}


def test_what_several_want_at_the_same_time_is_got_once(store: WatchedStore) -> None:
    entered, released = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert released.wait(SECONDS)

    store.before_get = hold
    cache = ObjectCache(store, capacity=0)
    key = store.add(b"data")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.get, key)
        assert entered.wait(SECONDS)
        # Begun while the first is in the store, and so not another get.
        second = cache.start([key])[key]
        released.set()
        assert (first.result(SECONDS), second.result(SECONDS)) == (b"data", b"data")
    assert store.gets[key] == 1
    cache.get(key)
    assert store.gets[key] == 2, "nothing was kept"


# What is said of what is not to be had.


def test_the_error_is_that_of_the_first_input_that_is_not_to_be_had(store: WatchedStore, tmp_path: Path) -> None:
    kept, gone, lost = (store.add_value(name) for name in ("kept", "gone", "lost"))
    for one in (gone, lost):
        (tmp_path / one.object_key).unlink()
    missing = Binding(output=OutputRef(number=1, output="output"))
    with pytest.raises(NotFoundError, match=gone.object_key) as told:
        resolved(store, items=Binding(list=BindingList(items=[*map(_bound, (kept, gone, lost)), missing])))
    with pytest.raises(NotFoundError) as plainly:
        from_payload(gone, UrlObjectStore(store.url))
    assert (told.value.message, told.value.fields) == (plainly.value.message, plainly.value.fields)
    with pytest.raises(BackendError, match="was not sent"):
        resolved(store, items=Binding(list=BindingList(items=[_bound(kept), missing, _bound(gone)])))


def test_an_error_is_not_kept(store: WatchedStore, tmp_path: Path) -> None:
    cache = ObjectCache(store)
    key = store.add(b"data")
    (tmp_path / key).unlink()
    with pytest.raises(NotFoundError):
        cache.get(key)
    store.add(b"data")
    assert cache.get(key) == b"data"


def test_damaged_content_is_told_and_not_kept(store: WatchedStore, tmp_path: Path) -> None:
    environment = Environment(store=ObjectCache(store))
    value = store.add_value("right")
    (tmp_path / value.object_key).write_bytes(b"wrong")
    with pytest.raises(BackendError, match="does not have the content") as told:
        environment.read(value)
    assert told.value.reason == "CORRUPT_VALUE"
    store.add_value("right")
    assert environment.read(value) == "right"


def test_a_step_fails_by_the_backend_where_one_of_its_inputs_is_gone(store: WatchedStore, tmp_path: Path) -> None:
    @step
    def join(a: str, b: str) -> str:
        return a + b

    there, gone = store.add_value("there"), store.add_value("gone")
    (tmp_path / gone.object_key).unlink()
    task = step_task(join)
    task.step.inputs.bindings["a"].value.CopyFrom(there)
    task.step.inputs.bindings["b"].value.CopyFrom(gone)
    with embedded(join) as talk:
        talk.tell(welcome=Welcome(object_store_url=store.url))
        talk.give(task)
        failure = talk.report().failed.failure
        assert (failure.origin, failure.reason) == (FAILURE_ORIGIN_BACKEND, "OBJECT_NOT_FOUND")
        assert gone.object_key in failure.message


def _bound(value: Payload) -> Binding:
    return Binding(value=value)
