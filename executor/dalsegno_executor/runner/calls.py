"""Numbers a body's calls, binds their inputs, and finds out what is to be done with each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dalsegno.arguments import Arguments, bind_arguments
from dalsegno.definitions import definition_ref, step_options
from dalsegno.invocation_ids import InvocationIds
from dalsegno.provenance import Provenance, Traced, fill_inputs
from dalsegno.steps import Step
from dalsegno.v1.execution_pb2 import INVOCATION_KIND_STEP, INVOCATION_KIND_WAIT
from dalsegno.v1.executor_service_pb2 import Call, RecordedCall, Report, Task
from dalsegno_executor.runner.completions import Completions, Order
from dalsegno_executor.runner.control import Diverged
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.inbox import Outcome
from dalsegno_executor.runner.matching import (
    Await,
    CallKind,
    CallSequence,
    Divergence,
    Ending,
    Execute,
    Made,
    Reuse,
)
from dalsegno_executor.runner.recorded import recorded_call, replay_rules, traced_fingerprint
from dalsegno_executor.runner.resolve import Resolver


class MadeCall:
    """A call that has its number.

    Attributes:
        number: What identifies it.
        invocation_id: Its readable ID.
        decision: What is to be done with it.
        recorded: The recorded call that it is, if any.
        arguments: Its arguments, overrides applied; empty for a wait.
    """

    __slots__ = ("_describe", "_report", "arguments", "decision", "invocation_id", "number", "recorded")

    def __init__(
        self,
        made: Made,
        decision: Reuse | Execute | Await,
        number: int,
        recorded: RecordedCall | None,
        arguments: Mapping[str, object],
        describe: Callable[[], Report],
    ) -> None:
        self.number = number
        self.invocation_id = made.invocation_id
        self.decision = decision
        self.recorded = recorded
        self.arguments = arguments
        self._describe = describe
        self._report: Report | None = None

    @property
    def report(self) -> Report:
        """What is reported of it, as soon as there is an action; of most calls that are reused that is nothing."""
        if self._report is None:
            self._report = self._describe()
            call = self._report.call
            call.number, call.position, call.invocation_id = self.number, self.decision.position, self.invocation_id
        return self._report

    @property
    def message(self) -> Call:
        """The call in the report."""
        return self.report.call

    @property
    def outcome(self) -> Outcome:
        """The recorded outcome, for a call that is reused."""
        assert self.recorded is not None
        return self.recorded.failure if self.recorded.HasField("failure") else self.recorded.outputs

    @property
    def attempts_before(self) -> int:
        """How often it was tried before the execution was last retried."""
        return self.recorded.attempts_before if self.recorded is not None else 0


class Calls:
    """The calls of one run of a body.

    Args:
        task: The body's task.
        recorded: All recorded calls: those of the task, and those of its further pages.
        pinned: Whether steps are to run with exactly the code that they have here.
        environment: Stores large plain values.
        ended: Has the calls that have ended.
    """

    def __init__(
        self,
        task: Task,
        recorded: Iterable[RecordedCall],
        *,
        pinned: bool,
        environment: Environment,
        ended: Order,
    ) -> None:
        work, self._token = task.body, task.token
        self._recorded = {call.number: call for call in recorded}
        self._overrides = {
            call.invocation_id: call.overridden_inputs
            for call in self._recorded.values()
            if call.HasField("overridden_inputs")
        }
        rules = replay_rules(work.replay) if work.HasField("replay") else None
        self._sequence = CallSequence(map(recorded_call, self._recorded.values()), work.next_number or 1, rules)
        self._resolver = Resolver(environment, (), work.inputs)
        self._ids = InvocationIds()
        self._pinned = pinned
        self._of_steps: dict[Step[..., Any], bytes] = {}
        yielded = {number: call.yielded for number, call in self._recorded.items() if call.yielded}
        self.completions = Completions(yielded, ended)
        self.provenance = Provenance(environment.store_encoded)

    def step(
        self,
        step: Step[..., Any],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        id: str | None,
        after: Sequence[object],
    ) -> MadeCall:
        """Take a call of a step.

        Raises:
            UsageError: If the arguments do not fit, have no codec, or the ID is taken.
            Diverged: If it is not the call that has to come here.
        """
        arguments = bind_arguments(step.function, args, kwargs)
        upstream = self.provenance.upstream_of(after)
        inputs = self.provenance.trace(arguments)
        invocation_id = self._ids.give(step.name, id)
        self._override(invocation_id, arguments, inputs)
        known = {name: traced_fingerprint(traced) for name, traced in inputs.items()}
        made = Made(CallKind.STEP, step.name, invocation_id, known, frozenset(upstream))
        return self._make(made, inputs, arguments, lambda: self._step_report(step, inputs, upstream))

    def wait(self, name: str) -> MadeCall:
        """Take a wait.

        Raises:
            Diverged: If it is not the call that has to come here.
        """
        invocation_id = self._ids.give(name)
        made = Made(CallKind.WAIT, name, invocation_id, {})
        return self._make(made, {}, {}, lambda: self._wait_report(name))

    def receive(self, number: int) -> None:
        """Note that the body has received the outcome of a call."""
        self._sequence.receive(number)

    def end(self, *, failed: bool) -> Ending:
        """Say what the end of the body means."""
        return self._sequence.end(failed=failed)

    def _make(
        self, made: Made, inputs: Mapping[str, Traced], arguments: Mapping[str, object], describe: Callable[[], Report]
    ) -> MadeCall:
        decision = self._sequence.make(made)
        if isinstance(decision, Divergence):
            raise Diverged(decision)
        number = decision.number if isinstance(decision, Execute) else decision.recorded.number
        self.provenance.record_call(number, made.name, made.invocation_id, inputs)
        return MadeCall(made, decision, number, self._recorded.get(number), arguments, describe)

    def _step_report(self, step: Step[..., Any], inputs: Mapping[str, Traced], after: Sequence[int]) -> Report:
        report = Report.FromString(self._same_of_all(step))
        fill_inputs(report.call.inputs, inputs)
        report.call.after.extend(after)
        return report

    def _wait_report(self, name: str) -> Report:
        return Report(token=self._token, call=Call(kind=INVOCATION_KIND_WAIT, name=name))

    def _same_of_all(self, step: Step[..., Any]) -> bytes:
        """Return what is the same in the reports of all calls of a step, serialized."""
        known = self._of_steps.get(step)
        if known is None:
            call = Call(
                kind=INVOCATION_KIND_STEP,
                name=step.name,
                definition=definition_ref(step, pinned=self._pinned),
                options=step_options(step.options),
            )
            known = self._of_steps[step] = Report(token=self._token, call=call).SerializeToString()
        return known

    def _override(self, invocation_id: str, arguments: Arguments, inputs: dict[str, Traced]) -> None:
        overrides = self._overrides.get(invocation_id)
        if overrides is None:
            return
        inputs.update(overrides.bindings)
        arguments.update(self._resolver.arguments(overrides))
