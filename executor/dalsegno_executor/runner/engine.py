"""A runner: takes tasks from its stream process, runs them in threads, and reports."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from dalsegno.decorators import Decorated
from dalsegno.definitions import definition_of
from dalsegno.v1.executor_service_pb2 import (
    Ack,
    Announce,
    Cancel,
    Credit,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    RecordedCall,
    Report,
    ResolvedCall,
    Returned,
    Task,
    TaskToken,
)
from dalsegno_executor.runner.body_tasks import BodyTaskRun
from dalsegno_executor.runner.channel import Channel
from dalsegno_executor.runner.control import HandedBack
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.inbox import Inbox
from dalsegno_executor.runner.log_capture import capture
from dalsegno_executor.runner.registry import Registry
from dalsegno_executor.runner.running import RunningCalls
from dalsegno_executor.runner.started_threads import mark_threads
from dalsegno_executor.runner.step_threads import StepThreads
from dalsegno_executor.runner.steps import run_step
from dalsegno_executor.runner.workers import Workers
from dalsegno_executor.tokens import BODY, TaskKey, key_of


class _Arriving:
    """The task of a body whose recorded calls come in pages."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.recorded: list[RecordedCall] = list(task.body.recorded.calls)


class Runner:
    """One runner.

    Args:
        channel: Joins it to its stream process.
        body_threads: How many bodies run at a time.
    """

    def __init__(self, channel: Channel, *, body_threads: int) -> None:
        mark_threads()
        capture()
        channel.log.start()
        self._channel = channel
        self._environment = Environment(
            keep_line=channel.log.keep, running=RunningCalls(keep_progress=channel.keep_progress)
        )
        self._registry = Registry()
        self.steps = StepThreads(channel, self._run_step)
        self._body_threads = Workers("body", max(1, body_threads))
        self._bodies: dict[TaskKey, Inbox] = {}
        self._arriving: dict[TaskKey, _Arriving] = {}
        self._answers: dict[int, Inbox] = {}
        self._report_ids = itertools.count(1)

    # What it says.

    def announce(self, objects: Iterable[Decorated[..., Any]]) -> None:
        """Add code, and say so."""
        added = list(objects)
        self._registry.add(added)
        definitions = [definition_of(decorated) for decorated in added]
        self._channel.send(ExecutorServiceWorkRequest(announce=Announce(definitions=definitions)))

    def offer(self, steps: int, bodies: int) -> None:
        """Say how many tasks it runs at a time."""
        self._channel.send(ExecutorServiceWorkRequest(credit=Credit(steps=steps, bodies=bodies)))

    def answered_to(self, inbox: Inbox) -> int:
        """Return an ID for a report whose fate is to come to an inbox."""
        report_id = next(self._report_ids)
        self._answers[report_id] = inbox
        return report_id

    def report(self, report: Report) -> None:
        """Send a report."""
        self._channel.send(report)

    # What it is told.

    def serve(self) -> None:
        """Do what the stream process says, until it closes the socket."""
        for message in self._channel.messages():
            self._obey(message)
        self.stop()

    def stop(self) -> None:
        """End bodies at their next durable call, and threads after what they run; what has not started never does."""
        self.steps.take_waiting()
        for inbox in list(self._bodies.values()):
            inbox.post(HandedBack("the stream process is gone"))
        self.steps.close()
        self._body_threads.close()
        self._channel.log.close()

    def _obey(self, message: ExecutorServiceWorkResponse) -> None:
        match message.WhichOneof("message"):
            case "tasks":
                for task in message.tasks.tasks:
                    self._take(task)
            case "acks":
                self._answer(message.acks.acks)
            case "resolved":
                self._resolve(message.resolved.calls)
            case "cancel":
                self._cancel(message.cancel)
            case "drain":
                self._hand_back(message.drain.reason)
            case "welcome":
                self._environment = self._environment.told_by(message.welcome)

    def _take(self, task: Task) -> None:
        match task.WhichOneof("work"):
            case "step":
                self.steps.put(task)
            case "body":
                arriving = _Arriving(task)
                self._arriving[key_of(task.token)] = arriving
                self._start_if_whole(arriving, more=task.body.recorded.more)
            case "recorded":
                waiting = self._arriving.get(key_of(task.token))
                if waiting is not None:
                    waiting.recorded.extend(task.recorded.calls)
                    self._start_if_whole(waiting, more=task.recorded.more)

    def _answer(self, acks: Sequence[Ack]) -> None:
        for ack in acks:
            inbox = self._answers.pop(ack.report_id, None)
            if inbox is not None:
                inbox.post(ack)

    def _resolve(self, calls: Sequence[ResolvedCall]) -> None:
        for call in calls:
            inbox = self._bodies.get(key_of(call.body))
            if inbox is not None:
                inbox.post(call)

    def _cancel(self, cancel: Cancel) -> None:
        """Stop tasks: those that have not started go back, code that runs is told, bodies end at their next call."""
        keys = [key_of(token) for token in cancel.tokens]
        returned = self._take_arriving(keys)
        for key in keys:
            inbox = self._bodies.get(key)
            if inbox is not None:
                inbox.post(HandedBack(cancel.reason))
        steps = {key for key in keys if key not in self._bodies and key[1] != BODY}
        if steps:
            returned += self.steps.take_waiting(steps)
        if steps or returned:
            self._channel.send(ExecutorServiceWorkRequest(returned=Returned(tokens=returned)))
        if not cancel.only_waiting:
            for key in keys:
                self._environment.running.stop(key)

    def _take_arriving(self, keys: Iterable[TaskKey]) -> list[TaskToken]:
        """Let go of bodies that have not come whole: they have no thread that would end at its next call."""
        taken = [self._arriving.pop(key).task.token for key in keys if key in self._arriving]
        for token in taken:
            del self._bodies[key_of(token)]
        return taken

    def _hand_back(self, reason: str) -> None:
        """Return what has not started; bodies leave at their next durable call."""
        tokens = [*self.steps.take_waiting(), *self._take_arriving(list(self._arriving))]
        self._channel.send(ExecutorServiceWorkRequest(returned=Returned(tokens=tokens)))
        for inbox in list(self._bodies.values()):
            inbox.post(HandedBack(reason))

    # How it runs.

    def _new_inbox(self) -> Inbox:
        return Inbox()

    def _run_step(self, task: Task) -> Report:
        return run_step(task, self._registry.step(task.definition), self._environment)

    def _start_if_whole(self, arriving: _Arriving, *, more: bool) -> None:
        key = key_of(arriving.task.token)
        # A body can be told to end, and calls be resolved for it, from now on.
        inbox = self._bodies.setdefault(key, self._new_inbox())
        if more:
            return
        del self._arriving[key]
        self._body_threads.run(lambda: self._run_body(key, arriving, inbox))

    def _run_body(self, key: TaskKey, arriving: _Arriving, inbox: Inbox) -> None:
        task = arriving.task
        flow = self._registry.flow(task.definition)
        run = BodyTaskRun(task, arriving.recorded, flow, self._environment, self, inbox)
        last = run.run()
        del self._bodies[key]
        self._send_last(last)

    def _send_last(self, last: Report | ExecutorServiceWorkRequest) -> None:
        self._channel.send(last)
