"""A client's plan, turned into what the command line shows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, assert_never

from dalsegno.cli.views import Fate, PlannedView, PlanView

if TYPE_CHECKING:
    from dalsegno.client.plans import Plan, PlannedInvocation, Reason


def plan_view(plan: Plan, source: str, limit: int) -> PlanView:
    """Convert a plan.

    Args:
        plan: As the client has it; its lists are fetched as far as they are looked at.
        source: The name of the execution that is replayed.
        limit: How many of what re-runs, and of what is reused, are looked at.
    """
    steps = [
        *_each(plan.affected, limit, reused=False),
        *_each(plan.reused, limit, reused=True),
    ]
    return PlanView(
        digest=plan.digest,
        source=source,
        affected_count=len(plan.affected),
        reused_count=len(plan.reused),
        steps=tuple(sorted(steps, key=lambda step: step.number)),
        waits=tuple(wait.invocation_id for wait in plan.waits),
        warnings=plan.warnings,
    )


def _each(entries: Iterable[PlannedInvocation], limit: int, *, reused: bool) -> list[PlannedView]:
    return [_planned(entry, reused=reused) for entry in islice(entries, limit)]


def _planned(entry: PlannedInvocation, *, reused: bool) -> PlannedView:
    return PlannedView(
        number=entry.number,
        invocation_id=entry.invocation_id,
        name=entry.name,
        fate=Fate.REUSED if reused else Fate.ROOT if entry.reasons else Fate.DOWNSTREAM,
        is_wait=entry.is_wait,
        reasons=tuple(reason_text(reason) for reason in entry.reasons),
        call_id=entry.call_id,
        seconds=entry.recorded_seconds,
        output_overridden=entry.output_overridden,
    )


def reason_text(reason: Reason) -> str:
    """Return why an invocation is a root, in a few words."""
    from dalsegno.client.plans import RootReason

    match reason.kind:
        case RootReason.FROM:
            return "the sign"
        case RootReason.CHECKPOINT_OVERRIDE:
            return f"takes the overridden {reason.cause.removeprefix('checkpoint.')}"
        case RootReason.STEP_INPUT_OVERRIDE:
            return f"its input {reason.cause} is overridden"
        case RootReason.FLOW_INPUT_OVERRIDE:
            return f"reads {reason.cause}, which is overridden"
        case (
            RootReason.CODE_CHANGED
            | RootReason.NOT_COMPLETED
            | RootReason.NOT_SKIPPED
            | RootReason.EVERYTHING
            | RootReason.NEW_STEP
            | RootReason.UNKNOWN
        ):
            return reason.kind.words
    assert_never(reason.kind)
