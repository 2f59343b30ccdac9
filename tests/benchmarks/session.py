"""What every benchmark is given: the engine, a client, and workers that have warmed up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from dalsegno import Client
from tests.benchmarks.engine import Engine, Isolation, Worker
from tests.benchmarks.figures import Figure
from tests.benchmarks.flows import chain_flow, chain_pipeline
from tests.benchmarks.wire import Wire

WAIT_S = 60.0
"""How long one execution may take before the benchmark is given up."""

_WARM_UP_STEPS = 50


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the benchmarks.

    Attributes:
        engine: The engine.
        client: The SDK's client.
        wire: The same planner without the SDK.
        largest: How many invocations the largest thing has that is measured.
        say: Told how far long work has come.
    """

    engine: Engine
    client: Client
    wire: Wire
    largest: int
    say: Callable[[str], None]

    @property
    def sizes(self) -> Sequence[int]:
        """Sizes to compare: 1,000, and ten times as much, up to the largest, which is one of them."""
        powers = [10**power for power in range(3, 9)]
        return [size for size in powers if size < self.largest] + [self.largest]

    @contextmanager
    def worker(self, isolation: Isolation, *options: str) -> Iterator[Worker]:
        """Runs a worker, which has run the measured code once when the block begins."""
        worker = Worker(self.engine, isolation, *options)
        try:
            worker.wait_until_connected()
            self._warm_up(worker)
            yield worker
        finally:
            worker.stop()

    def _warm_up(self, worker: Worker) -> None:
        try:
            chain_flow.run(_WARM_UP_STEPS).wait(timeout=WAIT_S)
        except TimeoutError:
            raise TimeoutError(f"the worker ran nothing in {WAIT_S:.0f} s; it said: {worker.last_words()}") from None
        with deadline(WAIT_S):
            chain_pipeline(_WARM_UP_STEPS)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A group of figures that are measured together.

    Attributes:
        name: For ``--only``.
        run: Yields the figures.
        is_long: Whether it belongs to ``--scale`` alone.
    """

    name: str
    run: Callable[[Session], Iterator[Figure]]
    is_long: bool = False


def time_limit(largest: int) -> float:
    """Returns how many seconds a benchmark of this size may take before it is given up."""
    return 300.0 + largest * 2e-3


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block, wherever it is, once it has taken too long. Main thread only."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done in {seconds:.0f} s")

    # The deadline of the block around this one is put back, with what is left of it.
    before = signal.signal(signal.SIGALRM, give_up)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)
