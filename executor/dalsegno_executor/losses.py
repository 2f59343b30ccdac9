"""What the death of a runner means for the tasks that it had.

Code that brings down its process must not be run again and again, so the attempt in which it did counts as failed.
Where one piece of code alone can have done it, that is the one. Where several can, none is blamed: each is run again,
alone in a process of its own, and if it does it again, it is known. So it is with a body that was in none of its steps:
it may have waited, while something else in the process went wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dalsegno.v1.executor_service_pb2 import Report
from dalsegno_executor.given import Given


@dataclass(frozen=True, slots=True)
class SuspectStep:
    """A step that can have been running."""

    given: Given


@dataclass(frozen=True, slots=True)
class SuspectCall:
    """A call that a body was running itself."""

    body: Given
    report: Report


@dataclass(frozen=True, slots=True)
class SuspectBody:
    """A body, in its own code."""

    given: Given


Suspect: TypeAlias = SuspectStep | SuspectCall | SuspectBody


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the tasks.

    Attributes:
        blamed: Who has done it, if that is certain.
        again: Steps that run again.
        back: Bodies that go back to the planner, to be recovered.
        alone: Which of them run alone from now on.
    """

    blamed: Suspect | None = None
    again: Sequence[Given] = ()
    back: Sequence[Given] = ()
    alone: Sequence[Given] = field(default=())


def judge(steps: Iterable[Given], bodies: Iterable[Given], *, killed_by_us: bool, ran_alone: bool) -> Verdict:
    """Decide what becomes of a dead runner's tasks.

    Args:
        steps: Those that it has not reported; any of them can have run, as it may hold back reports of short ones.
        bodies: Those that have not ended.
        killed_by_us: Whether it was the stream process that has ended it, so that nobody is to blame.
        ran_alone: Whether the runner was for one task alone.
    """
    steps = [given for given in steps if given.stopped is None]
    bodies = [given for given in bodies if given.stopped is None]
    if killed_by_us:
        return Verdict(again=steps, back=bodies)
    suspects = list(_suspects(steps, bodies))
    if len(suspects) == 1 and (ran_alone or not isinstance(suspects[0], SuspectBody)):
        blamed = suspects[0]
        return Verdict(
            blamed,
            again=[given for given in steps if not _is_about(blamed, given)],
            back=[given for given in bodies if isinstance(blamed, SuspectCall) or not _is_about(blamed, given)],
        )
    alone = list({id(given): given for given in map(_task_of, suspects)}.values())
    return Verdict(again=steps, back=bodies, alone=alone)


def _suspects(steps: Sequence[Given], bodies: Sequence[Given]) -> Iterator[Suspect]:
    found = False
    for given in steps:
        found = True
        yield SuspectStep(given)
    for body in bodies:
        for call in body.calls.values():
            found = True
            yield SuspectCall(body, call.report)
    if not found:
        yield from map(SuspectBody, bodies)


def _task_of(suspect: Suspect) -> Given:
    return suspect.body if isinstance(suspect, SuspectCall) else suspect.given


def _is_about(suspect: Suspect, given: Given) -> bool:
    return _task_of(suspect) is given
