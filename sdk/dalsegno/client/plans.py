"""What a replay would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING

from dalsegno.client.sequences import PagedSequence
from dalsegno.errors import StateError
from dalsegno.v1 import execution_pb2, replay_service_pb2
from dalsegno.v1.replay_service_pb2 import ReplayServicePlanRequest, ReplaySpec

if TYPE_CHECKING:
    from dalsegno.client.connection import Connection

PAGE_SIZE = 500


class RootReason(StrEnum):
    """Why an invocation is a replay root."""

    FROM = "from"
    CHECKPOINT_OVERRIDE = "checkpoint_override"
    STEP_INPUT_OVERRIDE = "step_input_override"
    CODE_CHANGED = "code_changed"
    NOT_COMPLETED = "not_completed"
    NOT_SKIPPED = "not_skipped"
    EVERYTHING = "everything"
    FLOW_INPUT_OVERRIDE = "flow_input_override"
    NEW_STEP = "new_step"
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """The reason for people, without its cause."""
        return _WORDS[self]


_WORDS = {
    RootReason.FROM: "asked for",
    RootReason.CHECKPOINT_OVERRIDE: "takes an overridden output",
    RootReason.STEP_INPUT_OVERRIDE: "its input is overridden",
    RootReason.CODE_CHANGED: "its code has changed",
    RootReason.NOT_COMPLETED: "it did not complete",
    RootReason.NOT_SKIPPED: "not skipped",
    RootReason.EVERYTHING: "everything re-executes",
    RootReason.FLOW_INPUT_OVERRIDE: "reads an overridden input",
    RootReason.NEW_STEP: "not in the recorded graph",
    RootReason.UNKNOWN: "for a reason that this release does not know",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for an invocation to re-execute.

    Attributes:
        kind: The reason.
        cause: The selector, override key or input name that caused it; empty where there is none.
    """

    kind: RootReason
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.kind.words} ({self.cause})" if self.cause else self.kind.words


@dataclass(frozen=True, slots=True)
class PlannedInvocation:
    """One invocation in a plan.

    Attributes:
        number: Its number.
        invocation_id: Its readable ID.
        name: The name of the step or wait.
        is_wait: Whether it is a wait.
        reasons: Why it is a root; empty for one that is not.
        call_id: For a reused one, the call that its outputs come from.
        recorded_seconds: How long it took when it was recorded; None where that is not known.
        output_overridden: Whether its output is overridden.
    """

    number: int
    invocation_id: str
    name: str
    is_wait: bool = False
    reasons: tuple[Reason, ...] = ()
    call_id: str | None = None
    recorded_seconds: float | None = None
    output_overridden: bool = False


class Plan:
    """What a replay would do. Long lists are fetched as they are looked at.

    Attributes:
        digest: Identifies the plan; give it as ``expect_plan`` to replay exactly this.
        source_exec_id: The execution that is replayed.
        roots: What must re-execute, with its reasons.
        affected: Everything that re-executes: the roots and what is downstream of them.
        reused: Everything that does not.
        waits: The waits that will be asked again.
        warnings: What to know before the replay runs.
    """

    def __init__(self, connection: Connection, spec: ReplaySpec) -> None:
        self._connection = connection
        self._spec = spec
        first = self._ask(replay_service_pb2.PLAN_VIEW_AFFECTED, "")
        self.digest = first.digest
        self.source_exec_id = first.source_execution_id
        self.warnings = tuple(first.warnings)
        self.waits = tuple(_entry(entry) for entry in first.waits)
        self.roots = self._view(replay_service_pb2.PLAN_VIEW_ROOTS, first.root_count)
        self.affected = self._view(replay_service_pb2.PLAN_VIEW_AFFECTED, first.affected_count, first)
        self.reused = self._view(replay_service_pb2.PLAN_VIEW_REUSED, first.reused_count)

    def __repr__(self) -> str:
        return (
            f"<Plan {self.digest[:12]} of {self.source_exec_id}: {len(self.roots)} roots, "
            f"{len(self.affected)} affected, {len(self.reused)} reused, {len(self.warnings)} warnings>"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        lines += [f"  root {one.invocation_id}: {'; '.join(map(str, one.reasons))}" for one in self.roots[:50]]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def _view(
        self,
        view: replay_service_pb2.PlanView.ValueType,
        count: int,
        first: replay_service_pb2.ReplayServicePlanResponse | None = None,
    ) -> PagedSequence[PlannedInvocation]:
        def fetch(token: str) -> tuple[Sequence[PlannedInvocation], str]:
            page = first if first is not None and not token else self._ask(view, token)
            if page.digest != self.digest:
                raise StateError(
                    f"the plan has changed since it was made: execution {self.source_exec_id} is not as it "
                    "was; plan again",
                    reason="PLAN_CHANGED",
                    fields={"expected": self.digest, "actual": page.digest},
                )
            return [_entry(entry) for entry in page.entries], page.next_page_token

        return PagedSequence(fetch, count)

    def _ask(
        self, view: replay_service_pb2.PlanView.ValueType, token: str
    ) -> replay_service_pb2.ReplayServicePlanResponse:
        request = ReplayServicePlanRequest(spec=self._spec, view=view, page_size=PAGE_SIZE, page_token=token)
        return self._connection.call(lambda stubs: stubs.replays.Plan, request)


def _entry(message: replay_service_pb2.PlanEntry) -> PlannedInvocation:
    return PlannedInvocation(
        number=message.number,
        invocation_id=message.invocation_id,
        name=message.name,
        is_wait=message.kind == execution_pb2.INVOCATION_KIND_WAIT,
        reasons=tuple(Reason(_reason(one.reason), one.cause) for one in message.reasons),
        call_id=message.call_id or None,
        recorded_seconds=message.recorded_seconds or None,
        output_overridden=message.output_overridden,
    )


def _reason(message: replay_service_pb2.RootReason.ValueType) -> RootReason:
    if message not in replay_service_pb2.RootReason.values():
        return RootReason.UNKNOWN
    name = replay_service_pb2.RootReason.Name(message).removeprefix("ROOT_REASON_").lower()
    return RootReason(name) if name in set(RootReason) else RootReason.UNKNOWN
