"""A script that debugs replays. With ``pdb`` as its argument it stops in the debugger, else it notes where it would."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from functools import partial
from typing import Any

from dalsegno import Client, flow, pipeline, step, wait
from dalsegno.errors import UserCodeError
from tests.e2e.sdk_scripts.saying import checkpoints, say

debugged = threading.Event()
stops: list[str] = []


def stop(where: str) -> None:
    """Stop here, but in a debugged replay only."""
    if debugged.is_set():
        stops.append(where)
        breakpoint()  # noqa: T100 - this is what is tested


def note() -> None:
    assert threading.current_thread() is threading.main_thread(), threading.current_thread()


def interrupt() -> None:
    raise KeyboardInterrupt


@step
def load(n: int) -> list[int]:
    stop("load")
    return list(range(n))


@step(timeout=0.5)
def total(xs: list[int]) -> int:
    stop("total")
    return sum(xs)


@step
async def increment(x: int) -> int:
    stop("increment")
    return x + 1


@step(retries=1, retry_delay=0.0)
def fragile(x: int) -> int:
    stop("fragile")
    raise ValueError(f"no luck with {x}")


@pipeline
def sums(n: int = 4) -> int:
    return total(load(n))


@flow
def side_by_side(n: int) -> int:
    stop("body")
    xs = load(n)
    beside = [*total.map([xs, [n]]), increment.submit(n)]
    added: int = sum(future.result() for future in beside)
    return total(xs) + added


@flow
async def on_a_loop(n: int) -> int:
    stop("body")
    sooner = await increment(n)
    later: int = await total.submit([sooner])
    return sooner + later


@flow
def failing(n: int) -> int:
    try:
        return fragile(n)
    except ValueError:
        stop("caught")
        raise


@flow
def asking(n: int) -> str:
    xs = load(n)
    answer = wait(name="word", schema=str)
    stop("answered")
    return f"{answer} {len(xs)}"


class Terminal(io.StringIO):
    """Somebody who answers as soon as the replay says that it waits."""

    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__()
        self.answer = answer

    def write(self, text: str) -> int:
        self.answer()
        return super().write(text)


def debugging(replay: Callable[[], Any]) -> Any:
    stops.clear()
    debugged.set()
    try:
        return replay()
    finally:
        debugged.clear()


def replay_pipelines(client: Client) -> None:
    run = sums()
    replayed = debugging(lambda: sums.replay(input_overrides={"n": 5}, debug=True))
    say("pipeline", result=replayed.result, debug=replayed.debug, source=run.debug, stops=stops)
    say("latest", original=sums.replay().original_exec_id == run.exec_id)
    skipped = debugging(lambda: sums.replay(pipeline_run=run, skip=["load"], debug=True))
    say("skip", stops=stops, checkpoints=checkpoints(skipped))
    single = debugging(lambda: total.replay(pipeline_run=run, input_overrides={"xs": [7]}, debug=True))
    say("step", output=single.checkpoints["total"].load(), single=single.single_step, debug=single.debug, stops=stops)


def replay_flows(client: Client) -> None:
    for kind in (side_by_side, on_a_loop):
        first = kind.run(3)
        expected = first.wait(30)
        handle = debugging(partial(kind.replay, first.exec_id, debug=True))
        say(kind.name, same=handle.wait(0.1) == expected, debug=handle.execution.debug, stops=sorted(stops))
    try:
        failing(1)
    except UserCodeError as error:
        handle = debugging(partial(failing.replay, error.exec_id, debug=True))
        failure = handle.execution.failure
        assert failure is not None
        say("failing", status=handle.status, stops=stops, attempt=failure.attempt, message=failure.message)


def answer_while_debugging(client: Client) -> None:
    def answer() -> None:
        client.executions.input(next(client.executions.list(flow="asking")), value="hello")

    first = asking.run(2)
    while first.status != "waiting":
        with suppress(TimeoutError):
            first.wait(0.05)
    answer()
    first.wait(30)
    terminal = Terminal(answer)
    with redirect_stderr(terminal):
        handle = debugging(partial(asking.replay, first.exec_id, debug=True))
    say("waits", result=handle.wait(0.1), told=terminal.getvalue(), stops=stops)


def interrupt_debugging(client: Client) -> None:
    sys.breakpointhook = interrupt
    source = next(one.exec_id for one in client.executions.list(flow="side_by_side") if not one.debug)
    replays: dict[str, Callable[[], Any]] = {
        "sums": partial(sums.replay, debug=True),
        "side_by_side": partial(side_by_side.replay, source, debug=True),
    }
    for name, replay in replays.items():
        try:
            debugging(replay)
        except KeyboardInterrupt:
            newest = next(client.executions.list(flow=name))
            say(f"interrupted {name}", finished=client.executions.wait(newest, 10).status.finished, debug=newest.debug)


if __name__ == "__main__":
    if "pdb" in sys.argv:
        sums()
        again = debugging(partial(sums.replay, debug=True))
        say("pdb", result=again.result, debug=again.debug)
    else:
        sys.breakpointhook = note
        for part in (replay_pipelines, replay_flows, answer_while_debugging, interrupt_debugging):
            part(Client())
