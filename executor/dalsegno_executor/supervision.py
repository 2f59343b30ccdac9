"""Keeps runner processes running, looks after long tasks, and reports what runners cannot report themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.definitions import settings_of
from dalsegno.payloads import inline_payload
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_RUNTIME, Failure
from dalsegno.v1.executor_service_pb2 import Report, TaskFailed
from dalsegno.values import encode
from dalsegno_executor.attempts import failed_call, failed_step, names_of, timestamp
from dalsegno_executor.fleet import Fleet
from dalsegno_executor.given import Given, Runner
from dalsegno_executor.losses import Suspect, SuspectBody, SuspectCall, SuspectStep, judge
from dalsegno_executor.protocol import Session
from dalsegno_executor.runners import RunnerCommand, RunnerProcess, describe_exit
from dalsegno_executor.saying import say

SHOWN_AFTER = 0.2
"""Seconds after which a task or call is shown as running."""
STUCK_AFTER = 0.1
"""Seconds after which a step keeps others that were fetched in advance from running."""
STOP_GRACE = 5.0
"""Seconds that code has to end by itself which was told to stop, where the planner says nothing else."""
IDLE_LIFETIME = 30.0
"""Seconds that a process for a single task stays, for the next one."""
TICK = 0.05
_LONGEST_RESTART_DELAY = 5.0
_SECONDS_BEFORE_ANOTHER = 1.0
_LIVED = 10.0
"""Seconds after which a runner that ends is not taken for one that cannot start."""


class Supervisor:
    """Watches over the runners of a fleet.

    Args:
        fleet: The runners.
        session: Takes reports.
        command: What runner processes run; None where the only runner is a script that joined.
    """

    def __init__(self, fleet: Fleet, session: Session, command: RunnerCommand | None) -> None:
        self.fleet = fleet
        self.closing = False
        self.on_gone: Callable[[Runner, int], None] = lambda runner, code: None
        self.enforces_timeouts = True
        """False where somebody may stop at a breakpoint."""
        self.stop_grace = STOP_GRACE
        self._session = session
        self._command = command
        self._short_lives = 0
        self._alone_from = 0.0
        fleet.casualties = self

    # Starting.

    def start_runner(self) -> Runner:
        """Start a runner process."""
        assert self._command is not None
        process = RunnerProcess(self._command)
        return self.fleet.add(process.socket, process)

    def start_alone(self) -> None:
        """Start a process that runs one task at a time."""
        assert self._command is not None
        if time.monotonic() < self._alone_from:
            return
        process = RunnerProcess(RunnerCommand(self._command.target, 1, 1))
        self.fleet.add(process.socket, process, exclusive=True)

    def close(self) -> None:
        """End all runners."""
        self.closing = True
        for runner in list(self.fleet.runners.values()):
            runner.link.close()

    def kill(self) -> None:
        """Kill all runners."""
        self.closing = True
        for runner in list(self.fleet.runners.values()):
            if runner.process is not None:
                runner.process.kill()

    # Ending.

    def runner_ended(self, runner: Runner) -> None:
        """Report what died with a runner, and start another one in its place."""
        code = 0 if runner.process is None else runner.process.reap()
        if runner.process is None:
            self._session.give_back([given.key for given in runner.all_given()])
        elif runner.announced and not self.closing:
            self._settle(runner, code)
        self.on_gone(runner, code)
        if runner.exclusive and not runner.announced and not self.closing:
            # Its code cannot be loaded any more. It is tried again, though not at once.
            self._alone_from = time.monotonic() + _SECONDS_BEFORE_ANOTHER
            asyncio.get_running_loop().call_later(_SECONDS_BEFORE_ANOTHER, self.fleet.refresh)
        if runner.process is not None and not runner.exclusive and not self.closing:
            asyncio.get_running_loop().call_later(self._restart_delay(runner), self._restart)

    def _settle(self, runner: Runner, code: int) -> None:
        text = f"the runner process {describe_exit(code)}"
        verdict = judge(
            runner.steps.values(),
            runner.bodies.values(),
            killed_by_us=bool(runner.killed_for),
            ran_alone=runner.exclusive,
        )
        if code or verdict.blamed is not None:
            say(runner.killed_for or text)
        for given in verdict.alone:
            self.fleet.alone.add((given.task.token.execution_id, given.task.token.number))
        if verdict.blamed is not None:
            self._report_loss(
                verdict.blamed, Failure(origin=FAILURE_ORIGIN_RUNTIME, message=text, reason="PROCESS_DIED")
            )
        self._session.give_back([given.key for given in verdict.back])
        if self._session.draining:
            self._session.give_back([given.key for given in verdict.again])
        else:
            self.fleet.place([given.task for given in verdict.again])

    def _report_loss(self, blamed: Suspect, failure: Failure) -> None:
        finished = timestamp(time.time_ns())
        match blamed:
            case SuspectStep():
                task = blamed.given.task
                failure.message = f"{failure.message} while step {task.definition.name!r} ran in it"
                self._session.report(failed_step(task, failure, _began(blamed.given), finished, ""))
            case SuspectCall():
                call = blamed.report.call
                failure.message = f"{failure.message} while step {call.name!r} ran in it"
                began = Timestamp()
                began.CopyFrom(call.started.started_at)
                before = call.started.attempts_before
                failed = failed_call(call, failure, began, finished, "", attempts_before=before)
                self._session.report(Report(token=blamed.report.token, call=failed))
            case SuspectBody():
                task = blamed.given.task
                failure.message = f"{failure.message} while the body of flow {task.definition.name!r} ran in it"
                ended = TaskFailed(failure=failure, started_at=_began(blamed.given), finished_at=finished)
                self._session.report(Report(token=task.token, failed=ended))

    def _restart_delay(self, runner: Runner) -> float:
        if time.monotonic() - runner.started > _LIVED or runner.killed_for:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        if self._short_lives == 1:
            return 0.0
        return min(_LONGEST_RESTART_DELAY, 0.05 * 2.0 ** min(self._short_lives, 10))

    def _restart(self) -> None:
        if not self.closing and not self._session.draining:
            self.start_runner()

    # Looking after what takes long.

    async def look_after(self) -> None:
        """Look at the tasks in hand, again and again."""
        while True:
            await asyncio.sleep(TICK)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Look at the tasks in hand once."""
        for runner in list(self.fleet.runners.values()):
            self._show_running(runner, now)
            self._take_back_waiting(runner, now)
            self._end_overdue(runner, now)
            self._end_idle(runner, now)
        self._session.accept_arrived()
        self.fleet.wake()

    def _show_running(self, runner: Runner, now: float) -> None:
        started = []
        for given in [*runner.at_work(), *runner.bodies.values()]:
            if given.since is not None and not given.shown and now - given.since > SHOWN_AFTER:
                given.shown = True
                started.append(given.key)
            for begun in given.calls.values():
                if not begun.shown and now - begun.since > SHOWN_AFTER:
                    begun.shown = True
                    report = Report()
                    report.CopyFrom(begun.report)
                    self._session.report(report)
                    self.fleet.refresh()
        if started:
            self._session.alive(started)
            self.fleet.refresh()

    def _take_back_waiting(self, runner: Runner, now: float) -> None:
        """Have what was fetched in advance go where there may be room for it, where it would wait here for long."""
        waiting = len(runner.steps) - runner.step_slots
        if waiting <= 0 or runner.taking_back:
            return
        if all(given.since is not None and now - given.since > STUCK_AFTER for given in runner.at_work()):
            runner.pace.stuck()
        elif not runner.pace.too_many(waiting):
            return
        runner.taking_back = True
        self.fleet.take_back(runner)

    def _end_overdue(self, runner: Runner, now: float) -> None:
        for given in [*runner.at_work(), *runner.bodies.values()]:
            if given.stopped is not None:
                if now - given.stopped > self.stop_grace:
                    self._kill(runner, f"{_named(given)} was told to stop and did not; its process was ended")
            elif self.enforces_timeouts and given.since is not None and given.task.step.options.HasField("timeout"):
                limit = settings_of(given.task.step.options).timeout
                if limit is not None and now - given.since > limit:
                    self._time_out(runner, given, limit)

    def _time_out(self, runner: Runner, given: Given, limit: float) -> None:
        task = given.task
        message = f"step {task.definition.name!r} exceeded its timeout of {limit:g} s"
        failure = Failure(
            origin=FAILURE_ORIGIN_RUNTIME,
            message=message,
            exception_type="builtins:TimeoutError",
            exception_args=inline_payload(encode((message,))),
            reason="STEP_TIMEOUT",
        )
        # The report goes first: after it nothing that the runner says of the task counts.
        ended, raised = timestamp(time.time_ns()), names_of(TimeoutError)
        self._session.report(failed_step(task, failure, _began(given), ended, "", raised))
        given.stopped = time.monotonic()
        if runner.exclusive:
            self._kill(runner, message)
        else:
            # A script's own process is not ours to end.
            self.fleet.interrupt(runner, given.key, message)
        self.fleet.refresh()

    def _kill(self, runner: Runner, reason: str) -> None:
        if runner.process is not None and not runner.killed_for:
            runner.killed_for = reason
            runner.process.kill()

    def _end_idle(self, runner: Runner, now: float) -> None:
        idle = runner.exclusive and runner.ready and not runner.steps and not runner.bodies
        if idle and now - runner.idle_since > IDLE_LIFETIME:
            runner.killed_for = "idle"
            runner.link.close()


def _named(given: Given) -> str:
    kind = "body of flow" if given.task.HasField("body") else "step"
    return f"{kind} {given.task.definition.name!r}"


def _began(given: Given) -> Timestamp:
    elapsed = 0.0 if given.since is None else time.monotonic() - given.since
    return timestamp(time.time_ns() - round(elapsed * 1e9))
