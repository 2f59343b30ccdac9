"""The durable calls of one flow body: what happens when it calls a step, waits, or asks a future."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from dalsegno.durable import StepFuture
from dalsegno.errors import BackendError, ContextError, NotFoundError
from dalsegno.steps import Step
from dalsegno.v1.execution_pb2 import Failure
from dalsegno.v1.executor_service_pb2 import (
    CallReused,
    CallSubmitted,
    CallWait,
    Task,
)
from dalsegno.v1.value_pb2 import Outputs
from dalsegno_executor.attempts import duration, failed_call, set_time, timestamp
from dalsegno_executor.runner.call_reports import CallReports, Reporting
from dalsegno_executor.runner.calls import Calls, MadeCall
from dalsegno_executor.runner.control import BodyEnd, Refused, Suspension
from dalsegno_executor.runner.direct import DirectRun, run_direct, run_direct_async
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.failures import BACKEND, exception_of, failure_of
from dalsegno_executor.runner.inbox import Inbox, Outcome
from dalsegno_executor.runner.log_capture import Who, Writer
from dalsegno_executor.runner.matching import Await, Execute, Reuse
from dalsegno_executor.runner.outputs import StoredOutputs, joined
from dalsegno_executor.runner.running import RunningCall
from dalsegno_executor.runner.turns import Turns
from dalsegno_executor.runner.waits import aborted, answer_of, json_text, schema_text, timed_out


class Body:
    """The context of one body; everything but its inbox belongs to the body's thread.

    Args:
        task: The body's task.
        calls: Its durable call sequence.
        environment: Reads and stores values.
        reporting: Takes its reports.
        inbox: Has what comes back.
    """

    draws_graph = False

    def __init__(self, task: Task, calls: Calls, environment: Environment, reporting: Reporting, inbox: Inbox) -> None:
        self._task = task
        self._calls = calls
        self._environment = environment
        self._inbox = inbox
        self._reports = CallReports(reporting, inbox, calls.completions)
        self._thread = threading.get_ident()
        self._turns: Turns | None = None
        self._on_end: Callable[[], object] = lambda: None
        self._raised: list[tuple[BaseException, Failure]] = []
        # What the body receives of calls that execute though their output is overridden.
        self._overridden: dict[int, Outputs] = {}
        # Submitted calls whose outcome the body has not looked at, in the order of their submission.
        self._unseen: dict[int, None] = {}

    # Calls of steps.

    def call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> object:
        """Make a call and return its value."""
        made = self._make(step, args, kwargs, id, after)
        if isinstance(made.decision, Reuse):
            return self._value(made.number, made.outcome)
        if self._runs_here(step, made):
            begun, writer, running = self._begin(made), self._writer(made), self._running(made)
            message = made.message.completed.outputs
            run = run_direct(step, made.arguments, self._environment, begun, writer, running, message)
            outputs = self._conclude(step, made, run)
            if outputs is not None:
                return self._hand_out(made.number, outputs)
        else:
            self._start_elsewhere(step, made)
        return self._value(made.number, self._inbox.wait_outcome(made.number))

    def submit(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> StepFuture[Any]:
        """Make a call that runs beside the body."""
        made = self._make(step, args, kwargs, id, after)
        self._start_elsewhere(step, made)
        self._unseen[made.number] = None
        return StepFuture(self, made.number, made.invocation_id)

    def async_call(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        id: str | None,
        after: Sequence[object],
    ) -> Coroutine[Any, Any, object]:
        """Make a call of an ``async def`` step: numbered now, run when it is awaited."""
        made = self._make(step, args, kwargs, id, after)
        if not self._runs_here(step, made):
            self._start_elsewhere(step, made)
            return self._awaited(made.number)
        return self._run_awaited(step, made)

    # Waits.

    def wait(
        self,
        name: str | None,
        schema: object,
        question: str | None,
        timeout: float | None,
        metadata: Mapping[str, object] | None,
    ) -> object:
        """Ask, and return the answer; where there is none yet, the body ends here."""
        self._check()
        try:
            made = self._calls.wait(name or "wait")
        except BodyEnd as ending:
            self._end(ending)
        self._note(made)
        if not isinstance(made.decision, Reuse):
            self._ask(made, schema, question, timeout, metadata)
        return self._answer(made, schema)

    def _ask(
        self,
        made: MadeCall,
        schema: object,
        question: str | None,
        timeout: float | None,
        metadata: Mapping[str, object] | None,
    ) -> NoReturn:
        if isinstance(made.decision, Execute):
            ask = CallWait(question=question or "", schema=schema_text(schema), metadata=json_text(metadata))
            if timeout is not None:
                ask.timeout.CopyFrom(duration(timeout))
            made.message.wait.CopyFrom(ask)
            self._reports.send_durably(made)
        self._end(Suspension(made.number))

    # Futures.

    def as_completed(self, futures: Sequence[StepFuture[Any]]) -> Iterator[StepFuture[Any]]:
        """Yield futures in the recorded order, and where there is none in that in which their calls end."""
        by_number = {future.number: future for future in futures}
        completions = self._calls.completions
        choices = completions.choices(by_number)
        while True:
            self._check()
            ended = len(self._inbox.ended)
            try:
                number = next(choices)
            except StopIteration:
                return
            if number is None:
                self._inbox.wait_next(ended)
                continue
            self._inbox.wait_outcome(number)
            completions.give(number)
            self._calls.receive(number)
            yield by_number[number]

    def future_result(self, number: int, timeout: float | None) -> object:
        """Return the value of a submitted call, or raise what it raised."""
        self._check()
        outcome = self._inbox.wait_outcome(number, timeout)
        return self._value(number, outcome)

    def future_exception(self, number: int, timeout: float | None) -> BaseException | None:
        """Return what a submitted call raised."""
        self._check()
        outcome = self._overridden.get(number, self._inbox.wait_outcome(number, timeout))
        self._receive(number)
        return self._rebuilt(outcome) if isinstance(outcome, Failure) else None

    def future_done(self, number: int) -> bool:
        """Return whether a submitted call has ended."""
        self._check()
        return self._inbox.outcome(number) is not None

    def future_await(self, number: int) -> Coroutine[Any, Any, object]:
        """Return a coroutine for the value of a submitted call."""
        self._check()
        return self._awaited(number)

    # The end.

    def runs_on_loop(self, turns: Turns, on_end: Callable[[], object]) -> None:
        """Say that the body is an ``async def``; `on_end` is called as soon as it is to end."""
        self._turns = turns
        self._on_end = on_end

    def wait_for_unseen(self) -> None:
        """Wait for submitted calls that the body has not looked at.

        Raises:
            Exception: What the first of them raised: a failure that nobody has seen must not pass for success.
        """
        for number in list(self._unseen):
            self._value(number, self._inbox.wait_outcome(number))

    def failure_behind(self, error: BaseException) -> Failure | None:
        """Return the failure of the step that an exception comes from, if it comes from one."""
        return next((failure for raised, failure in self._raised if raised is error), None)

    # How it is done.

    def _check(self) -> None:
        if threading.get_ident() != self._thread:
            raise ContextError(
                "a durable call from another thread than the body's own has no place in its order; use .submit() or "
                ".map() for calls side by side",
                reason="OTHER_THREAD",
            )
        self._inbox.check()

    def _make(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        id: str | None,
        after: Sequence[object],
    ) -> MadeCall:
        self._check()
        try:
            made = self._calls.step(step, args, kwargs, id, after)
        except BodyEnd as ending:
            self._end(ending)
        self._note(made)
        return made

    def _note(self, made: MadeCall) -> None:
        """Report that a call is reused where the recording does not say so, and keep what overrides its output."""
        decision = made.decision
        if isinstance(decision, Reuse):
            if decision.stale_inputs or decision.moved:
                made.message.reused.CopyFrom(CallReused(stale_inputs=decision.stale_inputs))
                self._reports.send(made)
        elif made.recorded is not None and made.recorded.output_overridden:
            self._overridden[made.number] = made.recorded.outputs

    def _runs_here(self, step: Step[..., Any], made: MadeCall) -> bool:
        return isinstance(made.decision, Execute) and step.options.runs_in_body

    def _start_elsewhere(self, step: Step[..., Any], made: MadeCall) -> None:
        match made.decision:
            case Execute():
                made.message.submitted.CopyFrom(CallSubmitted(code_digest=step.digest))
                self._reports.send(made)
            case Reuse():
                self._inbox.set_outcome(made.number, made.outcome)
            case Await():
                pass  # it comes by itself

    def _begin(self, made: MadeCall) -> int:
        """Tell the stream process which call begins, so that it knows what a runner died of; return the time."""
        started = time.time_ns()
        begun = made.message.started
        set_time(begun.started_at, started)
        begun.attempts_before = made.attempts_before
        self._reports.begin(made)
        return started

    def _writer(self, made: MadeCall) -> Writer:
        def who() -> Who:
            # Only the first attempt runs where the body runs.
            return Who(self._task.token, made.number, made.invocation_id, made.attempts_before + 1)

        return Writer(who, self._environment.keep_line)

    def _running(self, made: MadeCall) -> RunningCall:
        return self._environment.running.call(self._task.token, made.number)

    def _conclude(self, step: Step[..., Any], made: MadeCall, run: DirectRun) -> StoredOutputs | None:
        """Report how a call that ran here has ended, and wait until that is durable; None where it has failed."""
        self._describe_end(step, made, run)
        self._reports.send_durably(made)
        return run.outputs

    def _describe_end(self, step: Step[..., Any], made: MadeCall, run: DirectRun) -> None:
        if run.failure is not None:
            started, finished, before = timestamp(run.started), timestamp(run.finished), made.attempts_before
            call = failed_call(made.message, run.failure, started, finished, step.digest, run.raised, before)
            if call.WhichOneof("action") == "failed":
                self._inbox.set_outcome(made.number, call.failed.failure)
            return
        completed = made.message.completed  # its outputs are there
        set_time(completed.started_at, run.started)
        set_time(completed.finished_at, run.finished)
        completed.code_digest = step.digest

    async def _run_awaited(self, step: Step[..., Any], made: MadeCall) -> object:
        assert self._turns is not None
        turn = self._turns.join()
        try:
            self._check()
            begun, writer, running = self._begin(made), self._writer(made), self._running(made)
            outputs = made.message.completed.outputs
            run = await run_direct_async(step, made.arguments, self._environment, begun, writer, running, outputs)
            self._describe_end(step, made, run)
            report_id = self._reports.send_expected(made)
            await self._inbox.until_durable(report_id)
            if run.outputs is None:
                await self._inbox.until_outcome(made.number)
            await self._turns.take(turn)
        finally:
            self._turns.leave(turn)
        if run.outputs is not None:
            return self._hand_out(made.number, run.outputs)
        return self._value(made.number, await self._inbox.until_outcome(made.number))

    async def _awaited(self, number: int) -> object:
        assert self._turns is not None
        turn = self._turns.join()
        try:
            outcome = await self._inbox.until_outcome(number)
            await self._turns.take(turn)
        finally:
            self._turns.leave(turn)
        return self._value(number, outcome)

    # What the body receives.

    def _receive(self, number: int) -> None:
        self._unseen.pop(number, None)
        self._calls.receive(number)

    def _value(self, number: int, outcome: Outcome) -> object:
        self._receive(number)
        outcome = self._overridden.get(number, outcome)
        if isinstance(outcome, Failure):
            raise self._rebuilt(outcome)
        try:
            outputs = [(output.name, *self._environment.read_encoded(output.payload)) for output in outcome.outputs]
        except (BackendError, NotFoundError) as error:
            self._raised.append((error, failure_of(error, BACKEND)))
            raise
        for name, encoded, value in outputs:
            self._calls.provenance.record(value, number, name, encoded.digest, encoded.canonical)
        return joined([value for _, _, value in outputs])

    def _hand_out(self, number: int, outputs: StoredOutputs) -> object:
        if number in self._overridden:
            return self._value(number, self._overridden[number])
        self._receive(number)
        values = outputs.values()
        for name, encoded, value in zip(outputs.names, outputs.encoded, values, strict=True):
            self._calls.provenance.record(value, number, name, encoded.digest, encoded.canonical)
        return joined(values)

    def _answer(self, made: MadeCall, schema: object) -> object:
        assert made.recorded is not None
        if made.recorded.timed_out:
            self._receive(made.number)
            raise timed_out(made.invocation_id)
        value = self._value(made.number, made.recorded.outputs)
        if schema is None and value is False:
            self._end(Refused(aborted(made.invocation_id)))
        return answer_of(value, schema)

    def _rebuilt(self, failure: Failure) -> Exception:
        error = exception_of(failure)
        self._raised.append((error, failure))
        return error

    def _end(self, ending: BodyEnd) -> NoReturn:
        self._inbox.end(ending)
        self._on_end()
        raise ending
