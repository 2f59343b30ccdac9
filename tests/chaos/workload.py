"""What is asked of the system while things go wrong: random programs, replays of replays, waits, retries."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import hypothesis
import tenacity
from hypothesis import HealthCheck, Phase, given, settings

from dalsegno import Client
from dalsegno.client import starts
from dalsegno.client.executions import Execution
from dalsegno.client.plans import Plan
from dalsegno.errors import BackendError, FailureOrigin, NotFoundError, StateError
from tests.chaos import code
from tests.chaos.system import PROJECT
from tests.e2e.oracle.plain import Circumstances, PlainRun
from tests.e2e.oracle.scenarios import INPUTS, Asked, Scenario, flow_scenarios, pipeline_scenarios, planned

T = TypeVar("T")

_PASSING = frozenset({"PLANNER_UNREACHABLE", "DATABASE_UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN"})
"""Reasons of errors that say that somebody was not to be reached."""
_PATIENCE_S = 90.0
MOST_RETRIES = 8


@dataclass(frozen=True, slots=True)
class Begun:
    """An execution that was started, and what has to come of it.

    Attributes:
        exec_id: Its ID.
        expected: What a plain run of the same program gives; None where it asks.
        source: For a replay, what a plain run of its source gives.
        plan: For a replay, what it was planned to do.
        asked: For a replay, what was asked for.
        affected: For a pipeline's replay, what has to run, by the oracle.
        salt: For one that asks: what it was given.
        answers: For one that asks: what it was answered, whether the answer was acknowledged or not.
    """

    exec_id: str
    expected: PlainRun | None = None
    source: PlainRun | None = None
    plan: Plan | None = None
    asked: Asked | None = None
    affected: frozenset[str] | None = None
    salt: str = ""
    answers: Sequence[str] = ()


@dataclass
class Work:
    """What the customers of a run share."""

    over: threading.Event
    say: Callable[[str], None]
    begun: list[Begun] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)


class Over(Exception):
    """The time is up."""


class Customer(threading.Thread):
    """A client that asks for one thing after another.

    Args:
        number: Which one of the run's; with the seed it decides what is asked.
        seed: The seed of the run.
        address: Where the planners are.
        programs: How many programs it chooses from.
        work: Where what was started is noted.
    """

    def __init__(self, number: int, seed: int, address: str, programs: int, work: Work) -> None:
        super().__init__(name=f"customer {number}", daemon=True)
        self._chosen = random.Random(f"customer {number} of {seed}")
        self._number = number
        self._client = Client(address, PROJECT)
        self._work = work
        self._names = 0
        # Odd ones start flows, even ones pipelines.
        draw = flows_drawn if number % 2 else pipelines_drawn
        self._drawn = draw(seed * 100 + number, programs)

    def run(self) -> None:
        """Ask until the time is up."""
        try:
            while True:
                if self._number % 2 and self._chosen.random() < 0.3:
                    self._be_asked()
                else:
                    self._chain(self._chosen.choice(self._drawn))
        except Over:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self._work.surprises.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self._client.close()

    # Programs and their replays.

    def _chain(self, drawn: Drawn) -> None:
        scenario = drawn.scenario
        source = self._begin(drawn.runnable, scenario.program, x=INPUTS["x"])
        self._note(Begun(source.exec_id, scenario.source))
        source, before = self._seen_through(source, scenario.circumstances), scenario.source
        for wanted in drawn.replays:
            made, plan = self._replayed(source, wanted.asked.keywords())
            self._note(Begun(made.exec_id, wanted.expected, before, plan, wanted.asked, wanted.affected))
            source, before = self._seen_through(made, wanted.circumstances), wanted.expected

    def _replayed(self, source: Execution, keywords: Mapping[str, Any]) -> tuple[Execution, Plan]:
        executions = self._client.executions
        plan = self._persist(lambda: executions.plan(source, **keywords))
        known = {one.exec_id for one in self._persist(lambda: self._replays_of(source))}

        def create() -> Execution:
            # An answer that was lost is no reason to make another one.
            made = [one for one in self._replays_of(source) if one.exec_id not in known]
            return made[0] if made else executions.replay(source, expect_plan=plan.digest, **keywords)

        return self._persist(create), plan

    def _replays_of(self, source: Execution) -> list[Execution]:
        return list(self._client.executions.list(original_exec_id=source))

    def _begin(self, runnable: Any, *args: object, **kwargs: object) -> Execution:
        self._names += 1
        name = f"customer-{self._number}-{self._names}"
        is_flow = runnable is not code.random_pipeline
        start = starts.start_flow_on if is_flow else _start_pipeline

        def create() -> Execution:
            try:
                return self._client.executions.get(name)
            except NotFoundError:
                return start(self._client.reach, runnable, args, kwargs, name)

        return self._persist(create)

    # Waits.

    def _be_asked(self) -> None:
        salt = f"asking {self._number}.{self._names}"
        answers: list[str] = []
        execution = self._begin(code.asking_flow, salt, "x")
        self._note(Begun(execution.exec_id, salt=salt, answers=answers))
        if self._answered(execution, answers) and self._chosen.random() < 0.5:
            again: list[str] = []
            replay = self._persist(lambda: self._client.executions.replay(execution, from_="invocation:mix_2"))
            self._note(Begun(replay.exec_id, salt=salt, answers=again))
            self._answered(replay, again)

    def _answered(self, execution: Execution, answers: list[str]) -> bool:
        """Answer both questions; now and then abort first, and have it asked again. Return whether it has completed."""
        executions = self._client.executions
        for turn in range(2):
            if self._until_asked(execution, turn) and self._chosen.random() < 0.2:
                self._persist_or_refused(lambda: executions.abort_wait(execution))
                self._persist_or_refused(lambda: executions.retry(execution))
                self._until_asked(execution, turn)
            if self._chosen.random() < 0.2:
                return False  # it waits for good
            answer = f"answer {turn} {self._chosen.random()}"
            # Noted first: an answer may have come though its acknowledgement is lost.
            answers.append(answer)
            self._persist_or_refused(lambda answer=answer: executions.input(execution, value=answer))  # type: ignore[misc]
            if self._chosen.random() < 0.3:
                self._refused_twice(execution, turn)
        return self._seen_through(execution, may_interrupt=False).status == "completed"

    def _refused_twice(self, execution: Execution, turn: int) -> None:
        name = "go" if turn == 0 else f"go_{turn + 1}"
        try:
            self._client.executions.input(execution, value="too late", wait=name)
        except (StateError, BackendError):
            return
        self._work.surprises.append(f"{execution.exec_id}: a second answer to {name!r} was taken")

    def _until_asked(self, execution: Execution, turn: int) -> bool:
        """Wait until a question is open, and return whether it came to that."""
        while True:
            now = self._persist(lambda: self._client.executions.get(execution))
            waits = self._persist(lambda now=now: list(now.waits))  # type: ignore[misc]
            if now.status == "waiting" and len(waits) > turn and any(one.status == "pending" for one in waits):
                return True
            if now.status.finished and not self._retried_if_killed(now, MOST_RETRIES):
                return False
            self._pause(now)

    # Seeing it through.

    def _seen_through(
        self, execution: Execution, circumstances: Circumstances | None = None, *, may_interrupt: bool = True
    ) -> Execution:
        """Return the execution once it has ended for good, or is to be left waiting; answer what it asks.

        Now and then cancel and retry it on the way.
        """
        if may_interrupt and self._chosen.random() < 0.15:
            self._pause(execution)
            now = self._persist_or_refused(lambda: self._client.executions.cancel(execution))
            if now is None or now.status == "cancelled":
                self._persist_or_refused(lambda: self._client.executions.retry(execution))
        tries = 0
        while True:
            now = self._persist(lambda: self._client.executions.get(execution))
            if now.status == "waiting" and circumstances is not None and not self._answers(now, circumstances):
                return now
            if now.status.finished:
                tries += 1
                if not self._retried_if_killed(now, MOST_RETRIES - tries):
                    return now
            self._pause(now)

    def _answers(self, execution: Execution, circumstances: Circumstances) -> bool:
        """Answer what is asked; return whether it goes on, and is not to be left waiting."""
        waits = self._persist(lambda: list(execution.waits))
        if sum(one.status == "answered" for one in waits) == circumstances.answered:
            return False
        for one in waits:
            if one.status == "pending":
                self._persist_or_refused(
                    lambda name=one.invocation_id: self._client.executions.input(  # type: ignore[misc]
                        execution, wait=name, value=circumstances.answer(name)
                    )
                )
        return True

    def _retried_if_killed(self, ended: Execution, tries_left: int) -> bool:
        if not killed(ended) or tries_left < 0:
            return False
        self._work.say(f"{ended.exec_id} is retried: {ended.failure.message if ended.failure else ''}")
        self._persist_or_refused(lambda: self._client.executions.retry(ended))
        return True

    def _pause(self, execution: Execution) -> None:
        """Wait a little for the execution to end."""
        try:
            self._persist(lambda: self._client.executions.wait(execution, self._chosen.uniform(0.05, 0.5)))
        except TimeoutError:
            return

    def _persist(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
            stop=tenacity.stop_after_delay(_PATIENCE_S),
            reraise=True,
        )

        def unless_over() -> T:
            if self._work.over.is_set():
                raise Over
            return ask()

        return attempts(unless_over)

    def _persist_or_refused(self, ask: Callable[[], T]) -> T | None:
        """Ask until there is an answer; being refused for the state is one: an earlier try may have been heard."""
        try:
            return self._persist(ask)
        except StateError:
            return None

    def _note(self, begun: Begun) -> None:
        self._work.begun.append(begun)


def killed(ended: Execution) -> bool:
    """Whether an execution failed because the processes that ran it were killed under it, again and again."""
    return ended.failure is not None and ended.failure.origin is FailureOrigin.RUNTIME


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replay that is wanted: what has to come of it, and for a pipeline what has to run."""

    asked: Asked
    expected: PlainRun
    circumstances: Circumstances
    affected: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random program with its replays."""

    runnable: Any
    scenario: Scenario
    replays: Sequence[Wanted]


def flows_drawn(seed: int, count: int) -> list[Drawn]:
    """Draw random flows, the same for the same seed."""
    found: list[Drawn] = []

    @_drawing(seed, count)
    @given(flow_scenarios())
    def collect(scenario: Scenario) -> None:
        runnable = code.random_async_flow if scenario.program.get("async") else code.random_flow
        found.append(Drawn(runnable, scenario, list(_wanted(scenario))))

    collect()
    return found


def pipelines_drawn(seed: int, count: int) -> list[Drawn]:
    """Draw random pipelines, the same for the same seed."""
    found: list[Drawn] = []

    @_drawing(seed, count)
    @given(pipeline_scenarios())
    def collect(scenario: Scenario) -> None:
        wanted, source = [], scenario.source
        for one in _wanted(scenario):
            wanted.append(replace(one, affected=frozenset(planned(source, one.asked))))
            source = one.expected
        found.append(Drawn(code.random_pipeline, scenario, wanted))

    collect()
    return found


def _wanted(scenario: Scenario) -> Iterator[Wanted]:
    """Yield the replays of a scenario, up to one that asks for code of long ago or keeps stale values."""
    for one in scenario.replays:
        if one.asked.aged or one.asked.reruns_changed or one.expected is None or one.expected.diverged is not None:
            return
        yield Wanted(one.asked, one.expected, one.circumstances)


def _drawing(seed: int, count: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    unhurried = settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: hypothesis.seed(seed)(unhurried(test))


def _start_pipeline(reach: Any, runnable: Any, args: Any, kwargs: Any, name: str) -> Execution:
    return starts.start_pipeline(runnable, args, kwargs, reach, name)


def _passes(error: BaseException) -> bool:
    return isinstance(error, BackendError) and error.reason in _PASSING
