"""How many calls of a step run at once: its own, and those of other steps with the same limit."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dalsegno import Limit, UsageError, flow, pipeline, step

counting = threading.Lock()
running: list[int] = [0]
seen: list[int] = []
press = Limit("press", 2)


def count() -> None:
    """Be there for as long as others need to come, were they let."""
    with counting:
        running[0] += 1
        seen.append(running[0])
    threading.Event().wait(0.05)
    with counting:
        running[0] -= 1


@step(concurrency=1)
def alone(number: int) -> int:
    count()
    return number


@step(concurrency=press)
def printed(number: int) -> int:
    count()
    return number


@step(concurrency=press)
def bound(number: int) -> int:
    count()
    return number


@flow
def directly() -> int:
    return alone(1) + alone(2)


@flow
def in_bulk() -> int:
    return sum(future.result() for future in [*printed.map(range(6)), *bound.map(range(6))])


@pipeline
def drawn() -> Any:
    return [printed(number) for number in range(6)]


@pytest.fixture(autouse=True)
def nobody_has_been_seen() -> None:
    seen.clear()


def test_direct_calls_of_bodies_count_too() -> None:
    handles = [directly.run() for _ in range(4)]
    assert [handle.wait(60) for handle in handles] == [3] * 4
    assert seen == [1] * 8


def test_steps_share_a_limit_over_executions() -> None:
    handle = in_bulk.run()
    assert drawn().result == list(range(6))
    assert handle.wait(60) == 30
    assert len(seen) == 18
    assert max(seen) == 2


def test_calls_of_a_debugged_body_count_too() -> None:
    source = directly.run()
    assert source.wait(60) == 3
    handles = [directly.run() for _ in range(4)]
    assert directly.replay(source.exec_id, debug=True).wait(60) == 3
    assert [handle.wait(60) for handle in handles] == [3] * 4
    assert seen == [1] * 12


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "gpu", 2**31])
def test_what_is_no_limit_is_refused_with_what_is_one(concurrency: Any) -> None:
    with pytest.raises(UsageError, match=r"a whole number from 1, or a dalsegno\.Limit"):
        step(concurrency=concurrency)(count)
    with pytest.raises(UsageError, match="a whole number from 1"):
        Limit("gpu", concurrency)


@pytest.mark.parametrize("name", ["", " ", "a:b", "a/b", "a@b", "a\nb", 7])
def test_so_is_what_is_no_name(name: Any) -> None:
    with pytest.raises(UsageError, match="not blank, without ':', '@' and '/'"):
        Limit(name, 1)
