"""IDs of calls as users give them: whole, or shortened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from dalsegno.client.checkpoints import Checkpoint
from dalsegno.client.identity import execution_of
from dalsegno.errors import NotFoundError, StateError, UsageError

if TYPE_CHECKING:
    from dalsegno.client.executions import Execution

ID_DIGITS = 32
EXECUTION_DIGITS = 22
"""How many digits of a call's ID are those of its execution."""
SHORTEST_PART = 4

_HEX = re.compile("[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class CallId:
    """The ID of a call, or the beginning or the end of one.

    Its first digits are those of the execution that it was made in; the last ones tell calls apart.
    """

    text: str
    whole: UUID | None

    @classmethod
    def given(cls, step_run_id: object) -> CallId:
        """Return what a caller gave.

        Raises:
            UsageError: If it can be no part of an ID.
        """
        text = str(step_run_id).strip().lower()
        digits = text.replace("-", "")
        if not _HEX.fullmatch(digits) or not SHORTEST_PART <= len(digits) <= ID_DIGITS:
            raise UsageError(
                f"step_run_id={step_run_id!r} is neither the ID of a call nor the beginning or end of one; every "
                "checkpoint has one as its call_id",
                reason="INVALID_UUID",
            )
        return cls(text, UUID(digits) if len(digits) == ID_DIGITS else None)

    @property
    def digits(self) -> str:
        """What is known of it, without dashes."""
        return self.text.replace("-", "")

    @property
    def execution(self) -> str:
        """How the planner is asked for the execution, as far as that can be known."""
        return str(execution_of(self.whole)) if self.whole is not None else self.digits[:EXECUTION_DIGITS]

    def is_of(self, source: Execution) -> bool:
        """Return whether it can be a call of an execution."""
        return UUID(source.exec_id).hex.startswith(self.digits[:EXECUTION_DIGITS])

    def among(self, source: Execution, step: str) -> Checkpoint | None:
        """Return the call of a run that has this ID; where a shortened one fits several, that of the step.

        Raises:
            StateError: If it fits several of these.
        """
        if self.whole is not None:
            try:
                return source.call(self.whole)
            except NotFoundError:
                return None
        fitting = [one for one in source.checkpoints if self._fits(UUID(one.call_id).hex)]
        fitting = [one for one in fitting if one.name == step] or fitting
        if len(fitting) > 1:
            raise StateError(
                f"step_run_id {self} fits {len(fitting)} calls of run {source.name}; give more of the ID, or "
                f"invocation_id=: {listed_calls(fitting)}",
                reason="AMBIGUOUS_STEP_RUN",
                fields={"step_run_id": str(self), "execution": source.exec_id},
            )
        return fitting[0] if fitting else None

    def _fits(self, digits: str) -> bool:
        return digits.startswith(self.digits) or digits.endswith(self.digits)

    def not_found(self) -> NotFoundError:
        """Return the error for a call that is nowhere."""
        short = "" if self.whole is not None else "; the end of an ID says which call only with pipeline_run="
        return NotFoundError(
            f"no call has the ID {self}{short}", reason="CALL_NOT_FOUND", fields={"step_run_id": str(self)}
        )

    def disagrees_with(self, source: Execution) -> UsageError:
        """Return the error for a call that is not in the run that was given with it."""
        return UsageError(
            f"step_run_id {self} is no call of run {source.name} ({source.exec_id}); give one of the two",
            reason="DISAGREEING",
            fields={"step_run_id": str(self), "execution": source.exec_id},
        )

    def __str__(self) -> str:
        return self.text


def listed_calls(calls: Sequence[Checkpoint]) -> str:
    """Return calls as an error lists them."""
    return "; ".join(f"{one.invocation_id} ({one.call_id})" for one in calls[:50])
