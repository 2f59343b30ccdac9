"""What goes wrong, and when: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

LEASE_S = 3.0
"""The lease of the executors; what sleeps through it is fenced."""
_QUIET_S = 1.5
_LEAST_GAP_S, _MOST_GAP_S = 0.3, 4.0


class Part(StrEnum):
    """What a fault befalls."""

    WORKER = "worker"
    RUNNER = "runner"
    PLANNER = "planner"
    POSTGRES = "postgres"
    TO_PLANNERS_FROM_WORKERS = "connections of workers"
    TO_PLANNERS_FROM_CLIENTS = "connections of clients"
    TO_POSTGRES = "connections to postgres of planner"


class Harm(StrEnum):
    """What a fault does.

    `KILL` ends a process at once, `END` tells it to end by itself (SIGTERM; Postgres: immediate shutdown), and it is
    started again afterwards. `STOP` stops it without its knowing (SIGSTOP) and lets it go on afterwards. `CUT` closes
    connections in the middle of whatever they carry; `FREEZE` lets nothing through, and tells nobody.
    """

    KILL = "kill"
    END = "end"
    STOP = "stop"
    CUT = "cut"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: Seconds after the start.
        harm: What is done.
        part: What it is done to.
        which: Which of them; the number is taken modulo how many there are.
        lasts: Seconds until it is mended.
    """

    at: float
    harm: Harm
    part: Part
    which: int
    lasts: float

    def __str__(self) -> str:
        return f"{self.harm} {self.part} {self.which}, for {self.lasts:.2f} s from {self.at:.2f} s on"


_LONG = (LEASE_S + 1.0, LEASE_S + 2.5)
_SHORT = (0.0, 1.5)
_KINDS: Sequence[tuple[int, Harm, Part, tuple[float, float]]] = (
    (4, Harm.KILL, Part.WORKER, _SHORT),
    (3, Harm.STOP, Part.WORKER, _LONG),
    (3, Harm.END, Part.WORKER, _SHORT),
    (1, Harm.KILL, Part.RUNNER, _SHORT),
    (1, Harm.STOP, Part.RUNNER, _LONG),
    (4, Harm.KILL, Part.PLANNER, _SHORT),
    (2, Harm.STOP, Part.PLANNER, _LONG),
    (2, Harm.END, Part.PLANNER, _SHORT),
    (2, Harm.KILL, Part.POSTGRES, _SHORT),
    (1, Harm.END, Part.POSTGRES, _SHORT),
    (3, Harm.CUT, Part.TO_PLANNERS_FROM_WORKERS, _SHORT),
    (1, Harm.FREEZE, Part.TO_PLANNERS_FROM_WORKERS, _LONG),
    (2, Harm.CUT, Part.TO_PLANNERS_FROM_CLIENTS, _SHORT),
    (1, Harm.FREEZE, Part.TO_PLANNERS_FROM_CLIENTS, _SHORT),
    (3, Harm.CUT, Part.TO_POSTGRES, _SHORT),
    (1, Harm.FREEZE, Part.TO_POSTGRES, _SHORT),
)


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run, in order; every kind comes about as often as its weight says."""
    chosen = random.Random(f"faults {seed}")
    faults = []
    at = _QUIET_S
    while at < seconds - _QUIET_S:
        _, harm, part, (least, most) = chosen.choices(_KINDS, [kind[0] for kind in _KINDS])[0]
        lasts = min(chosen.uniform(least, most), max(seconds - at, 0.0))
        faults.append(Fault(round(at, 2), harm, part, chosen.randrange(12), round(lasts, 2)))
        at += chosen.uniform(_LEAST_GAP_S, _MOST_GAP_S)
    return faults
