"""The runners of a stream process: which of them gets which task, and what they say.

Everything here happens on the stream process's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_FENCED,
    Ack,
    Cancel,
    Drain,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    Report,
    ResolvedCall,
    Task,
    Welcome,
)
from dalsegno_executor.events import RunnerId
from dalsegno_executor.given import BegunCall, Given, Runner
from dalsegno_executor.link import Link
from dalsegno_executor.protocol import Session
from dalsegno_executor.runners import RunnerProcess
from dalsegno_executor.tokens import BODY, TaskKey, ends_task, key_of, token_of


class Casualties(Protocol):
    """What is done about runners that have ended."""

    def runner_ended(self, runner: Runner) -> None:
        """Take note that a runner has ended; it is not in the fleet any more."""
        ...


class Fleet:
    """The runners, and the tasks that wait for one.

    Args:
        session: Takes what the runners report.
        wake: Called when the session has something to send.
        start_alone: Starts a runner process for one task at a time; None where there are no processes to start.
        most_alone: How many such processes there may be.
    """

    def __init__(
        self,
        session: Session,
        wake: Callable[[], None],
        start_alone: Callable[[], None] | None = None,
        most_alone: int = 0,
    ) -> None:
        self.runners: dict[RunnerId, Runner] = {}
        self.alone: set[tuple[bytes, int]] = set()
        """Executions and numbers of tasks that get a process of their own: one of them may have ended a runner."""
        self.casualties: Casualties | None = None
        self.on_ready: Callable[[Runner], None] = lambda runner: None
        self._session = session
        self.wake = wake
        self._start_alone = start_alone
        self._most_alone = most_alone
        self._ids = itertools.count(1)
        self._welcome: Welcome | None = None
        self._holders: dict[TaskKey, Runner] = {}
        self._unplaced: deque[Task] = deque()
        self._unplaced_alone: deque[Task] = deque()
        # Further pages of the recorded calls of bodies that wait for a runner.
        self._pages: dict[TaskKey, list[Task]] = {}
        # Outcomes of calls for them.
        self._outcomes: dict[TaskKey, list[ResolvedCall]] = {}

    # Runners.

    def add(self, sock: socket.socket, process: RunnerProcess | None, *, exclusive: bool = False) -> Runner:
        """Take in a runner, which is given tasks once it has announced its code."""
        runner_id = RunnerId(next(self._ids))
        link = Link(sock, lambda messages: self._hear(runner, messages), lambda: self._hung_up(runner))
        runner = Runner(runner_id, link, process, exclusive, started=time.monotonic())
        self.runners[runner_id] = runner
        if process is not None:
            process.watch(lambda: self.remove(runner))
        if self._welcome is not None:
            link.send(ExecutorServiceWorkResponse(welcome=self._welcome))
        return runner

    def remove(self, runner: Runner) -> None:
        """Let go of a runner that has ended."""
        if self.runners.get(runner.id) is not runner:
            return
        # First, so that nothing that comes of its last words is given to it.
        del self.runners[runner.id]
        runner.link.read_rest()
        runner.link.close()
        for given in runner.all_given():
            self._holders.pop(given.key, None)
        if self.casualties is not None:
            self.casualties.runner_ended(runner)
        self.refresh()

    def welcome(self, welcome: Welcome) -> None:
        """Tell the runners where values are stored."""
        self._welcome = welcome
        for runner in self.runners.values():
            runner.link.send(ExecutorServiceWorkResponse(welcome=welcome))

    # What the planner sends.

    def place(self, tasks: Iterable[Task]) -> None:
        """Give tasks to runners, or let them wait for one."""
        batches: dict[RunnerId, ExecutorServiceWorkResponse] = {}
        candidates = [runner for runner in self.runners.values() if runner.ready and not runner.exclusive]
        now = time.monotonic()
        for task in tasks:
            key = key_of(task.token)
            if key[1] == BODY and task.HasField("recorded"):
                runner = self._holder_of_page(task, key)
            else:
                runner = self._choose(task, candidates)
                if runner is not None:
                    self._note_given(runner, task, key, now)
            if runner is not None:
                given = batches.setdefault(runner.id, ExecutorServiceWorkResponse()).tasks.tasks
                given.append(task)
                if key in self._pages:
                    given.extend(self._pages.pop(key))
        for runner_id, batch in batches.items():
            self.runners[runner_id].link.send(batch)
            for task in batch.tasks.tasks if self._outcomes else ():
                self.resolve(self._outcomes.pop(key_of(task.token), ()))

    def answer(self, runner_id: RunnerId, acks: Sequence[Ack]) -> None:
        """Pass acknowledgements on to the runner that waits for them."""
        runner = self.runners.get(runner_id)
        if runner is not None:
            message = ExecutorServiceWorkResponse()
            message.acks.acks.extend(acks)
            runner.link.send(message)

    def resolve(self, calls: Sequence[ResolvedCall]) -> None:
        """Pass outcomes on to the bodies that have submitted the calls."""
        for call in calls:
            key = key_of(call.body)
            runner = self._holders.get(key)
            if runner is None and self._session.holds(key):
                self._outcomes.setdefault(key, []).append(call)
            elif runner is not None:
                message = ExecutorServiceWorkResponse()
                message.resolved.calls.append(call)
                runner.link.send(message)

    def stop(self, keys: Iterable[TaskKey], reason: str) -> None:
        """Tell runners to stop tasks that are not ours any more."""
        now = time.monotonic()
        for key in keys:
            runner = self._holders.get(key)
            if runner is None:
                self._forget_unplaced(key)
                continue
            given = runner.find(key)
            if given is not None:
                given.stopped = given.stopped or now
            self._cancel(runner, [key], reason)
        self.refresh()

    def drain(self, reason: str) -> None:
        """Hand back what has not started, and have bodies leave at their next durable call."""
        for task in [*self._unplaced, *self._unplaced_alone]:
            self._session.give_back([key_of(task.token)])
        self._unplaced.clear()
        self._unplaced_alone.clear()
        self._pages.clear()
        self._outcomes.clear()
        for runner in self.runners.values():
            runner.link.send(ExecutorServiceWorkResponse(drain=Drain(reason=reason)))
        self.wake()

    def interrupt(self, runner: Runner, key: TaskKey, reason: str) -> None:
        """Tell the code of a task to stop; what it says of the task does not count any more."""
        self._cancel(runner, [key], reason)

    def take_back(self, runner: Runner) -> None:
        """Ask a runner for the steps that it has not started and that are beyond its window; another may be free."""
        # Where none is to wait, those too that are reckoned to run: a live one may have come after others had begun.
        ahead = runner.step_slots + runner.pace.window if runner.pace.window else 0
        waiting = itertools.islice(runner.steps, ahead, None)
        self._cancel(runner, list(waiting), "another runner may be free for it", only_waiting=True)
        # Before they are back at the planner, it is not to send as many in their place.
        self.refresh()

    def refresh(self) -> None:
        """Place what waits, and offer what room there is."""
        if self._session.draining:
            self.wake()
            return
        if self._unplaced:
            tasks, self._unplaced = self._unplaced, deque()
            self.place(tasks)
        if self._unplaced_alone:
            tasks, self._unplaced_alone = self._unplaced_alone, deque()
            self.place(tasks)
        steps = bodies = live_steps = live_bodies = 0
        for runner in self.runners.values():
            if runner.ready and not runner.exclusive:
                steps += runner.step_slots + runner.pace.window - _stopped(runner.steps.values())
                bodies += runner.body_slots - runner.live_body_slots - _stopped(runner.bodies.values())
                live_steps += runner.live_step_slots
                live_bodies += runner.live_body_slots
        self._session.offer(max(0, steps), max(0, bodies), live_steps=live_steps, live_bodies=live_bodies)
        self.wake()

    # Which runner.

    def _holder_of_page(self, page: Task, key: TaskKey) -> Runner | None:
        holder = self._holders.get(key)
        if holder is None:
            self._pages.setdefault(key, []).append(page)
        return holder

    def _choose(self, task: Task, candidates: Sequence[Runner]) -> Runner | None:
        if self._needs_own_process(task):
            return self._choose_alone(task)
        if not candidates:
            self._unplaced.append(task)
            return None
        if len(candidates) == 1:
            return candidates[0]
        if task.HasField("body"):
            return min(candidates, key=lambda runner: len(runner.bodies) - runner.body_slots)
        return max(candidates, key=lambda runner: runner.step_room)

    def _needs_own_process(self, task: Task) -> bool:
        if self._start_alone is None:
            return False
        if task.HasField("step") and task.step.options.HasField("timeout"):
            return True
        return bool(self.alone) and (task.token.execution_id, task.token.number) in self.alone

    def _choose_alone(self, task: Task) -> Runner | None:
        exclusive = [runner for runner in self.runners.values() if runner.exclusive]
        for runner in exclusive:
            if runner.ready and not runner.steps and not runner.bodies:
                return runner
        self._unplaced_alone.append(task)
        starting = sum(not runner.announced for runner in exclusive)
        if self._start_alone is not None and len(exclusive) < self._most_alone and starting < len(self._unplaced_alone):
            self._start_alone()
        return None

    def _note_given(self, runner: Runner, task: Task, key: TaskKey, now: float) -> None:
        if key[1] == BODY:
            runner.bodies[key] = Given(task, key, now)
        else:
            runner.give_step(Given(task, key, now if len(runner.steps) < runner.step_slots else None))
        self._holders[key] = runner

    def _forget_unplaced(self, key: TaskKey) -> None:
        self._unplaced = deque(task for task in self._unplaced if key_of(task.token) != key)
        self._unplaced_alone = deque(task for task in self._unplaced_alone if key_of(task.token) != key)
        self._pages.pop(key, None)
        self._outcomes.pop(key, None)

    def _cancel(self, runner: Runner, keys: Sequence[TaskKey], reason: str, *, only_waiting: bool = False) -> None:
        if keys:
            message = Cancel(tokens=map(token_of, keys), reason=reason, only_waiting=only_waiting)
            runner.link.send(ExecutorServiceWorkResponse(cancel=message))

    # What the runners say.

    def _hear(self, runner: Runner, messages: Sequence[bytes]) -> None:
        was_ready, changed = runner.ready, False
        for data in messages:
            message = ExecutorServiceWorkRequest.FromString(data)
            kind = message.WhichOneof("message")
            if kind == "reports":
                changed |= self._hear_reports(runner, message.reports.reports)
                continue
            changed = True
            match kind:
                case "log_lines":
                    self._session.write(message.log_lines.lines)
                case "heartbeat":
                    self._session.progressed(message.heartbeat.progress)
                case "returned":
                    self._hear_returned(runner, [key_of(token) for token in message.returned.tokens])
                case "announce":
                    self._session.announce(message.announce.definitions)
                    runner.announced = True
                case "credit":
                    runner.step_slots += message.credit.steps
                    runner.body_slots += message.credit.bodies
                    runner.idle_since = time.monotonic()
        if runner.ready and not was_ready:
            self.on_ready(runner)
        # What a body says of its calls changes no slots.
        if changed:
            self.refresh()
        else:
            self.wake()

    def _hear_reports(self, runner: Runner, reports: Sequence[Report]) -> bool:
        """Take reports; return whether tasks have ended with them."""
        some_end = False
        for report in reports:
            key = key_of(report.token)
            given = runner.bodies.get(key) if key[1] == BODY else runner.steps.get(key)
            if given is None:
                continue
            if ends_task(report):
                some_end = True
                self._let_go(runner, given)
            elif self._follow_call(given, report):
                continue
            report_id = report.report_id
            if not self._session.report(report, runner.id) and report_id:
                ack = Ack(
                    report_id=report_id, status=ACK_STATUS_FENCED, reason="the task is not this executor's any more"
                )
                self.answer(runner.id, [ack])
        if some_end:
            _begin_next(runner)
            runner.observe_pace(reports)
        return some_end

    def _follow_call(self, given: Given, report: Report) -> bool:
        """Keep track of which calls a body runs; return whether the report is for this alone."""
        number = report.call.number
        if report.call.WhichOneof("action") == "started" and not report.report_id:
            given.calls[number] = BegunCall(report, time.monotonic())
            return True
        given.calls.pop(number, None)
        for attempt in report.call.failed_attempts:
            attempt.executor = self._session.identity.executor
        return False

    def _hear_returned(self, runner: Runner, keys: Sequence[TaskKey]) -> None:
        again = []
        runner.taking_back = False
        for key in keys:
            given = runner.find(key)
            if given is None:
                continue
            self._let_go(runner, given)
            if given.stopped is None and given.task.HasField("step") and not self._session.draining:
                again.append(given.task)
            else:
                self._session.give_back([key])
        _begin_next(runner)
        self._place_again(again)

    def _place_again(self, tasks: Sequence[Task]) -> None:
        """Place steps that came back where there is a slot free at once; the others go back to the planner."""
        for task in tasks:
            free = any(
                runner.ready and not runner.exclusive and len(runner.steps) < runner.step_slots
                for runner in self.runners.values()
            )
            if free:
                self.place([task])
            else:
                self._session.give_back([key_of(task.token)])

    def _let_go(self, runner: Runner, given: Given) -> None:
        runner.remove(given.key)
        self._holders.pop(given.key, None)

    def _hung_up(self, runner: Runner) -> None:
        if runner.process is None:
            self.remove(runner)
        else:
            # It is about to end, and its exit code says how. If it is not, it is of no use any more.
            asyncio.get_running_loop().call_later(1.0, self._kill_hung_up, runner)

    def _kill_hung_up(self, runner: Runner) -> None:
        if self.runners.get(runner.id) is runner and runner.process is not None:
            runner.process.kill()


def _begin_next(runner: Runner) -> None:
    """Note that steps which it was given in advance can be running, now that others have ended."""
    now = runner.idle_since = time.monotonic()
    for given in runner.at_work():
        if given.since is None:
            given.since = now


def _stopped(given: Iterable[Given]) -> int:
    return sum(task.stopped is not None for task in given)
