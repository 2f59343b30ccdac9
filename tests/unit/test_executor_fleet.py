"""The stream process and its runners over real socket pairs; the test is the runners, and the planner."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dalsegno.v1.definition_pb2 import DEFINITION_KIND_STEP, Definition, StepOptions
from dalsegno.v1.execution_pb2 import LANE_BULK
from dalsegno.v1.executor_service_pb2 import (
    ACK_STATUS_DURABLE,
    Ack,
    Acks,
    Announce,
    BodyTask,
    Call,
    CallStarted,
    Credit,
    ExecutorServiceWorkRequest,
    ExecutorServiceWorkResponse,
    Heartbeat,
    RecordedCalls,
    Report,
    Reports,
    ResolvedCall,
    Returned,
    StepCompleted,
    StepTask,
    Task,
    Tasks,
    TaskToken,
    Welcome,
)
from dalsegno_executor.attempts import duration, timestamp
from dalsegno_executor.events import Deliver
from dalsegno_executor.fleet import Fleet
from dalsegno_executor.framing import FrameReader, frame
from dalsegno_executor.given import Runner
from dalsegno_executor.protocol import Identity, Session
from dalsegno_executor.supervision import STUCK_AFTER, Supervisor
from dalsegno_executor.tokens import key_of


def step(number: int, options: StepOptions | None = None) -> Task:
    token = TaskToken(execution_id=b"e" * 16, number=number, epoch=1)
    return Task(token=token, step=StepTask(invocation_id=f"s{number}", attempt=1, options=options))


def body() -> Task:
    return Task(token=TaskToken(execution_id=b"f" * 16, epoch=1), body=BodyTask())


def completed(number: int, nanoseconds: int = 1000) -> Report:
    ok = StepCompleted(started_at=timestamp(0), finished_at=timestamp(nanoseconds))
    return Report(token=step(number).token, completed=ok)


class ScriptedRunner:
    """A runner's end of the pair."""

    def __init__(self, office: Office, steps: int = 1, bodies: int = 1) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = ours
        self._reader = FrameReader()
        self._messages: list[ExecutorServiceWorkResponse] = []
        self._office = office
        self.seen: Runner = office.fleet.add(theirs, None)
        self._capacity = Credit(steps=steps, bodies=bodies)

    async def join(self) -> None:
        """Announce code and slots."""
        definition = Definition(kind=DEFINITION_KIND_STEP, module="m", name="s", digest="1")
        await self.say(announce=Announce(definitions=[definition]))
        await self.say(credit=self._capacity)
        await self._office.until(lambda: self.seen.ready)

    async def say(self, **message: Any) -> None:
        data = frame(ExecutorServiceWorkRequest(**message))
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def report(self, *reports: Report) -> None:
        await self.say(reports=Reports(reports=reports))

    async def next(self, kind: str) -> ExecutorServiceWorkResponse:
        """Return the next message of a kind."""
        while True:
            while not self._messages:
                data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 1 << 16), 20)
                self._messages += map(ExecutorServiceWorkResponse.FromString, self._reader.feed(data))
            message = self._messages.pop(0)
            if message.WhichOneof("message") == kind:
                return message

    async def tasks(self, count: int) -> list[int]:
        """Return the numbers of the next tasks."""
        numbers: list[int] = []
        while len(numbers) < count:
            message = await self.next("tasks")
            numbers += [task.token.number for task in message.tasks.tasks]
        return numbers

    def leave(self) -> None:
        self._socket.close()


class Office:
    """A fleet without processes, its session, and what it tells the planner."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self.session = Session(Identity(b"k" * 16, "host:1", "demo"))
        self.fleet = Fleet(self.session, self._woken.set)
        self.supervisor = Supervisor(self.fleet, self.session, None)
        self._runners: list[ScriptedRunner] = []
        self._said: list[ExecutorServiceWorkRequest] = []
        self.session.connect()
        self.session.receive(ExecutorServiceWorkResponse(welcome=Welcome()))

    def give(self, *tasks: Task) -> None:
        message = ExecutorServiceWorkResponse(tasks=Tasks(tasks=tasks))
        for event in self.session.receive(message):
            assert isinstance(event, Deliver)
            self.fleet.place(event.tasks)

    async def says(self, kind: str) -> ExecutorServiceWorkRequest:
        """Return the next message of a kind to the planner."""
        while True:
            while (message := self.session.next_message()) is not None:
                self._said.append(message)
            for index, message in enumerate(self._said):
                if message.WhichOneof("message") == kind:
                    return self._said.pop(index)
            self._woken.clear()
            await asyncio.wait_for(self._woken.wait(), 20)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; what changes it wakes the session."""
        while not holds():
            self._woken.clear()
            await asyncio.wait_for(self._woken.wait(), 20)

    async def hire(self, steps: int = 1, bodies: int = 1) -> ScriptedRunner:
        runner = ScriptedRunner(self, steps, bodies)
        self._runners.append(runner)
        await runner.join()
        return runner

    def close(self) -> None:
        self.supervisor.close()
        for runner in self._runners:
            runner.leave()


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    yield office
    office.close()


async def test_capacity_is_what_the_runners_offer(office: Office) -> None:
    await office.hire(steps=2, bodies=3)
    await office.hire(steps=1, bodies=2)
    credit = (await office.says("credit")).credit
    assert (credit.steps, credit.bodies) == (3, 5)


async def test_steps_go_where_there_is_room(office: Office) -> None:
    first, second = await office.hire(), await office.hire()
    office.give(step(1), step(2))
    assert sorted([*await first.tasks(1), *await second.tasks(1)]) == [1, 2]


async def test_what_has_arrived_is_accepted_at_the_next_look(office: Office) -> None:
    office.give(step(1))
    office.supervisor.look(time.monotonic())
    assert [one.number for one in (await office.says("accepted")).accepted.tokens] == [1]


async def test_tasks_wait_for_a_runner_and_pages_wait_with_their_body(office: Office) -> None:
    office.give(step(1), body())
    office.give(Task(token=body().token, recorded=RecordedCalls()))
    runner = await office.hire()
    message = await runner.next("tasks")
    kinds = [task.WhichOneof("work") for task in message.tasks.tasks]
    assert kinds == ["step", "body", "recorded"]


async def test_outcomes_wait_with_their_body_for_a_runner(office: Office) -> None:
    office.give(body())
    office.fleet.resolve([ResolvedCall(body=body().token, number=3)])
    runner = await office.hire()
    assert await runner.tasks(1) == [0]
    assert (await runner.next("resolved")).resolved.calls[0].number == 3


async def test_short_steps_open_the_window_and_a_stuck_one_gives_the_others_back(office: Office) -> None:
    runner = await office.hire()
    assert (await office.says("credit")).credit.steps == 1
    office.give(step(1))
    assert await runner.tasks(1) == [1]
    await runner.report(completed(1))
    assert (await office.says("credit")).credit.steps > 100
    office.give(step(2), step(3), step(4))
    assert await runner.tasks(3) == [2, 3, 4]
    office.supervisor.look(time.monotonic() + 2 * STUCK_AFTER)
    cancel = (await runner.next("cancel")).cancel
    assert [token.number for token in cancel.tokens] == [2, 3, 4]
    await runner.say(returned=Returned(tokens=[step(4).token]))
    assert [token.number for token in (await office.says("returned")).returned.tokens] == [4]


async def with_open_window(office: Office) -> ScriptedRunner:
    """A runner that has proved to be fast, with one step."""
    runner = await office.hire()
    office.give(step(1))
    await runner.tasks(1)
    await runner.report(completed(1))
    await office.until(lambda: runner.seen.pace.window > 20)
    return runner


async def test_what_was_fetched_while_steps_were_short_is_given_back_when_they_are_long(office: Office) -> None:
    runner = await with_open_window(office)
    office.give(*map(step, range(2, 7)))
    assert await runner.tasks(5) == [2, 3, 4, 5, 6]
    await runner.report(*(completed(number, 80_000_000) for number in (2, 3)))
    await office.until(lambda: runner.seen.pace.too_many(1))
    office.supervisor.look(time.monotonic())
    cancel = (await runner.next("cancel")).cancel
    assert ([token.number for token in cancel.tokens], cancel.only_waiting) == ([4, 5, 6], True)


async def test_what_would_wait_for_long_is_given_back_where_steps_are_not_so_short_any_more(office: Office) -> None:
    runner = await with_open_window(office)
    office.give(*map(step, range(2, 22)))
    await runner.tasks(20)
    await runner.report(*(completed(number, 45_000_000) for number in (2, 3)))
    await office.until(lambda: runner.seen.pace.window == 1)
    office.supervisor.look(time.monotonic())
    cancel = (await runner.next("cancel")).cancel
    assert ([token.number for token in cancel.tokens], cancel.only_waiting) == ([*range(6, 22)], True)


async def test_where_steps_are_short_a_live_one_can_come_besides(office: Office) -> None:
    runner = await office.hire(bodies=16)
    credit = (await office.says("credit")).credit
    assert (credit.live_steps, credit.bodies, credit.live_bodies) == (0, 14, 2)
    office.give(step(1))
    await runner.tasks(1)
    await runner.report(completed(1))
    assert (await office.says("credit")).credit.live_steps == 1


async def test_a_live_step_is_reckoned_to_run_before_bulk_that_waits(office: Office) -> None:
    runner = await office.hire()
    bulk = [step(number) for number in (1, 2, 3)]
    for task in bulk:
        task.lane = LANE_BULK
    office.give(*bulk, step(4))
    await runner.tasks(4)
    (known,) = office.fleet.runners.values()
    assert [key[1] for key in known.steps] == [1, 4, 2, 3]


async def test_a_live_step_comes_back_from_behind_bulk_that_had_begun_before_it_came(office: Office) -> None:
    runner = await office.hire()
    bulk = [step(1), step(2)]
    for task in bulk:
        task.lane = LANE_BULK
    office.give(*bulk, step(3))
    await runner.tasks(3)
    await runner.report(completed(1, 80_000_000))  # and 2 has begun, before 3 came
    await office.until(lambda: len(runner.seen.steps) == 2)
    office.supervisor.look(time.monotonic() + 2 * STUCK_AFTER)
    assert 3 in [token.number for token in (await runner.next("cancel")).cancel.tokens]


async def test_what_a_stuck_runner_gives_back_goes_to_a_free_one(office: Office) -> None:
    busy = await office.hire()
    office.give(step(1), step(2))
    assert await busy.tasks(2) == [1, 2]
    free = await office.hire()
    office.supervisor.look(time.monotonic() + 2 * STUCK_AFTER)
    await busy.next("cancel")
    await busy.say(returned=Returned(tokens=[step(2).token]))
    assert await free.tasks(1) == [2]


async def test_what_comes_back_with_the_last_words_of_a_runner_is_not_given_to_it_again(office: Office) -> None:
    dying = await office.hire()
    office.give(step(1), step(2))
    await dying.tasks(2)
    other = await office.hire()
    await dying.report(completed(1))
    await dying.say(returned=Returned(tokens=[step(2).token]))
    office.fleet.remove(dying.seen)
    assert await other.tasks(1) == [2]


async def test_a_script_that_leaves_gives_everything_back(office: Office) -> None:
    runner = await office.hire(steps=2)
    office.give(step(1), body())
    await runner.next("tasks")
    runner.leave()
    returned: list[int] = []
    while len(returned) < 2:
        returned += [token.number for token in (await office.says("returned")).returned.tokens]
    assert sorted(returned) == [0, 1]
    assert office.session.settled


async def test_a_call_that_takes_long_is_shown_as_running(office: Office) -> None:
    runner = await office.hire()
    office.give(body())
    await runner.next("tasks")
    begun = Report(token=body().token, call=Call(number=1, started=CallStarted()))
    await runner.report(begun)
    [given] = runner.seen.bodies.values()
    # By itself it wakes nobody; what is heard after it does.
    await runner.say(heartbeat=Heartbeat())
    await office.until(lambda: bool(given.calls))
    office.supervisor.look(time.monotonic() + 1)
    [report] = (await office.says("reports")).reports.reports
    assert report.call.WhichOneof("action") == "started"
    assert [token.number for token in (await office.says("heartbeat")).heartbeat.running] == [0]


async def test_a_script_cannot_be_killed_but_its_overdue_step_fails(office: Office) -> None:
    runner = await office.hire()
    office.give(step(1, StepOptions(timeout=duration(1.0))))
    await runner.next("tasks")
    office.supervisor.look(time.monotonic() + 2)
    [report] = (await office.says("reports")).reports.reports
    assert report.failed.failure.exception_type == "builtins:TimeoutError"
    office.session.receive(
        ExecutorServiceWorkResponse(acks=Acks(acks=[Ack(report_id=report.report_id, status=ACK_STATUS_DURABLE)]))
    )
    assert office.session.settled
    await runner.report(completed(1))
    office.give(step(2))
    assert await runner.tasks(1) == [2]
    assert office.session.next_message() is not None


async def test_answers_and_outcomes_reach_the_runner_that_has_the_body(office: Office) -> None:
    await office.hire(bodies=1)
    runner = await office.hire(bodies=2)
    office.give(body())
    await runner.next("tasks")
    office.fleet.resolve([ResolvedCall(body=body().token, number=3)])
    assert (await runner.next("resolved")).resolved.calls[0].number == 3
    office.fleet.stop([key_of(body().token)], "cancelled")
    assert (await runner.next("cancel")).cancel.reason == "cancelled"
