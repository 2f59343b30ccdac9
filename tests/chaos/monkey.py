"""Carries out a schedule of faults, and mends them all in the end."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from threading import Event

import psutil
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from dalsegno.errors import BackendError
from tests.chaos.schedule import Fault, Harm, Part
from tests.chaos.system import Slot, System
from tests.doors import Door

_SIGNALS = {Harm.KILL: signal.SIGKILL, Harm.END: signal.SIGTERM, Harm.STOP: signal.SIGSTOP}

_STARTS = 3

Mend = Callable[[], None]


def _nothing() -> None:
    """What needs no mending."""


class Monkey:
    """Does what the schedule says.

    Args:
        system: The victims.
        say: Told what is done, and when.
    """

    def __init__(self, system: System, say: Callable[[str], None]) -> None:
        self._system = system
        self._say = say
        self._order = itertools.count()

    def rampage(self, faults: Sequence[Fault], seconds: float, give_up: Event) -> None:
        """Carry out the faults, each at its time, and return after this many seconds with everything mended."""
        began = time.monotonic()
        due: list[tuple[float, int, Mend]] = []
        for fault in faults:
            heapq.heappush(due, (fault.at, next(self._order), self._harm(fault, due, began)))
        while due and not give_up.is_set():
            at, _, act = heapq.heappop(due)
            if give_up.wait(max(0.0, at - (time.monotonic() - began))):
                break
            act()
        give_up.wait(max(0.0, seconds - (time.monotonic() - began)))
        while due:
            heapq.heappop(due)[2]()
        self._system.start()

    def _harm(self, fault: Fault, due: list[tuple[float, int, Mend]], began: float) -> Mend:
        def act() -> None:
            mend = self._do(fault)
            self._say(f"{fault}{'' if mend is not None else ': there was nothing to do it to'}")
            if mend is not None:
                heapq.heappush(due, (time.monotonic() - began + fault.lasts, next(self._order), mend))

        return act

    def _do(self, fault: Fault) -> Mend | None:
        """Do it; return what mends it, or None where there was nothing to do it to."""
        system = self._system
        match fault.part:
            case Part.WORKER:
                return _to_process(fault, system.workers[fault.which % len(system.workers)])
            case Part.PLANNER:
                return _to_process(fault, system.planners[fault.which % len(system.planners)])
            case Part.RUNNER:
                return _to_runner(fault, system.workers[fault.which % len(system.workers)])
            case Part.POSTGRES:
                number = signal.SIGKILL if fault.harm is Harm.KILL else signal.SIGQUIT
                return self._start_postgres if system.kill_postgres(number) else None
            case Part.TO_PLANNERS_FROM_WORKERS:
                return self._to_door(fault, system.for_workers)
            case Part.TO_PLANNERS_FROM_CLIENTS:
                return self._to_door(fault, system.for_clients)
            case Part.TO_POSTGRES:
                return self._to_door(fault, system.to_postgres[fault.which % len(system.to_postgres)])

    def _start_postgres(self) -> None:
        # As whoever looks after a server does: one that ends while it starts is started again.
        attempts = Retrying(
            retry=retry_if_exception_type(BackendError),
            stop=stop_after_attempt(_STARTS),
            before_sleep=lambda state: self._say(f"postgres did not start: {state.outcome}"),
            reraise=True,
        )
        attempts(self._system.postgres.start)

    def _to_door(self, fault: Fault, door: Door) -> Mend:
        doors = self._system.doors
        if fault.harm is Harm.CUT:
            doors.do(door.cut())
            return _nothing
        doors.do(door.freeze())
        return lambda: doors.do(door.thaw())


def _to_process(fault: Fault, slot: Slot) -> Mend | None:
    if not slot.signal(_SIGNALS[fault.harm]):
        return None
    process = slot.process
    assert process is not None
    if fault.harm is Harm.STOP:
        return lambda: _let_go_on(process)
    return lambda: _start_again(slot, process)


def _start_again(slot: Slot, process: psutil.Process) -> None:
    # One that ends by itself finishes what it has at hand first; it may also be stopped meanwhile.
    if slot.process is process:
        _let_go_on(process)
        slot.wait_ended()
    slot.start()


def _to_runner(fault: Fault, worker: Slot) -> Mend | None:
    if worker.process is None:
        return None
    try:
        runners = sorted(worker.process.children(), key=lambda child: child.pid)
        if not runners:
            return None
        runner = runners[fault.which % len(runners)]
        runner.send_signal(_SIGNALS[fault.harm])
    except psutil.NoSuchProcess:
        return None
    return (lambda: _let_go_on(runner)) if fault.harm is Harm.STOP else _nothing


def _let_go_on(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return
