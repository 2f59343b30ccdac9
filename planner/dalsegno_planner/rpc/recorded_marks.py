"""What few steps of an import have: overrides, attempts besides the first, and the call that they were reused from."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from dalsegno.errors import UsageError
from dalsegno.v1.execution_pb2 import INVOCATION_STATE_FAILED, INVOCATION_STATE_NOT_REACHED, InvocationState
from dalsegno.v1.execution_service_pb2 import ImportedStep
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.rpc.convert import moment, optional_uuid
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.store.invocations import AttemptRow, MarkRow

_MOST_ATTEMPTS = 2**31 - 1


class MarksReader:
    """Gathers the rows of a message's steps.

    Args:
        execution_id: Whose steps they are.
        values: Knows whether a payload is complete.
        report: Notes a problem: the field, and what is wrong.
        is_replay: Whether the header says what was replayed; only a replay overrides anything.
    """

    def __init__(
        self, execution_id: ExecutionId, values: ValueReader, report: Callable[[str, str], None], *, is_replay: bool
    ) -> None:
        self._execution_id = execution_id
        self._values = values
        self._report = report
        self._is_replay = is_replay
        self._marks: list[MarkRow] = []
        self._attempts: list[AttemptRow] = []

    def read(self, number: int, step: ImportedStep) -> None:
        """Take what a step has; most have nothing."""
        overrides = step.output_overridden or step.stale_inputs or bool(step.overridden_inputs)
        if not overrides and not step.failed_attempts:
            attempt = step.attempt
            if not attempt or attempt == _attempts_used(step.state, 0):
                return
        if overrides and not self._is_replay:
            self._report(f"steps[{number}]", _only_a_replay("overrides anything"))
        attempts = [one.attempt or place for place, one in enumerate(step.failed_attempts, 1)]
        if len(set(attempts)) < len(attempts) or max((step.attempt, *attempts)) > _MOST_ATTEMPTS:
            self._report(f"steps[{number}].failed_attempts", "each attempt has a number of its own, from 1")
            return
        self._marks.append(
            MarkRow(
                self._execution_id,
                number,
                step.attempt or _attempts_used(step.state, max(attempts, default=0)),
                step.stale_inputs,
                list(step.overridden_inputs),
                step.output_overridden,
                self._returned(number, step),
            )
        )
        for attempt, one in zip(attempts, step.failed_attempts, strict=True):
            self._attempts.append(
                AttemptRow(
                    self._execution_id,
                    number,
                    attempt,
                    one.executor,
                    moment(one.started_at) if one.HasField("started_at") else None,
                    moment(one.finished_at) if one.HasField("finished_at") else None,
                    one.failure.SerializeToString() if one.HasField("failure") else None,
                )
            )

    def original_call_id(self, number: int, step: ImportedStep, state: str) -> UUID | None:
        """Return which call a step was reused from; None where it ran."""
        if not step.original_call_id:
            return None
        place = f"steps[{number}].original_call_id"
        if not self._is_replay:
            self._report(place, _only_a_replay("reuses calls"))
        if state != "completed":
            self._report(place, f"only a call that has completed is reused, and this one is {state}")
        try:
            return optional_uuid(step.original_call_id, place)
        except UsageError as error:
            self._report(place, error.message)
            return None

    def take_marks(self) -> list[MarkRow]:
        """Return what was gathered, and begin anew."""
        taken, self._marks = self._marks, []
        return taken

    def take_attempts(self) -> list[AttemptRow]:
        """Return what was gathered, and begin anew."""
        taken, self._attempts = self._attempts, []
        return taken

    def _returned(self, number: int, step: ImportedStep) -> bytes | None:
        if not step.HasField("returned"):
            return None
        for output in step.returned.outputs:
            if not self._values.is_complete(output.payload):
                self._report(f"steps[{number}].returned.{output.name}", "a value needs its digest and its size")
        return step.returned.SerializeToString()


def _only_a_replay(does: str) -> str:
    return f"only a replay {does}: give the header the original_exec_id of what it replayed"


def _attempts_used(state: InvocationState.ValueType, failed: int) -> int:
    """How many attempts there were where a record does not say it."""
    if state == INVOCATION_STATE_NOT_REACHED:
        return failed
    if state == INVOCATION_STATE_FAILED:
        return max(failed, 1)
    return failed + 1
