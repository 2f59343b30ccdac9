"""A replay's plan, drawn: what re-runs and why, what is reused from where, and what that saves."""

from __future__ import annotations

from typing import assert_never

from rich.console import Group, RenderableType
from rich.text import Text

from dalsegno.cli.tables import table
from dalsegno.cli.views import Fate, PlannedView, PlanView
from dalsegno.cli.wording import count_text, seconds_text, short_id


def plan_table(plan: PlanView) -> RenderableType:
    """Draw a plan."""
    parts: list[RenderableType] = [Text.assemble("If ", (plan.source, "bold"), " is replayed so:")]
    if plan.steps:
        parts += [Text(), _steps(plan)]
    hidden = plan.affected_count + plan.reused_count - len(plan.steps)
    if hidden:
        parts.append(Text(f"… and {hidden:,} more; --limit shows more of them", style="dim"))
    parts += [Text(), _summary(plan)]
    for wait in plan.waits:
        parts.append(Text.assemble(("asked again: ", "yellow"), wait))
    for warning in plan.warnings:
        parts.append(Text.assemble(("warning: ", "yellow"), warning))
    return Group(*parts)


def _summary(plan: PlanView) -> Text:
    total = plan.affected_count + plan.reused_count
    line = Text.assemble(
        (f"{plan.affected_count:,} of {count_text(total, 'step')} re-run", "bold"),
        f", {plan.reused_count:,} {'is' if plan.reused_count == 1 else 'are'} reused",
    )
    if plan.reused_count:
        least = "" if plan.is_complete else "at least "
        line.append(f": {least}{seconds_text(plan.seconds_saved)} of work saved")
    return line


def _steps(plan: PlanView) -> RenderableType:
    drawn = table("", "step", "", "why", "took", right=("took",))
    for step in plan.steps:
        mark, word, style = _fate(step.fate)
        drawn.add_row(
            Text(mark, style=style),
            Text(f"? {step.invocation_id}" if step.is_wait else step.invocation_id),
            Text(word, style=style),
            Text(_why(step)),
            Text(seconds_text(step.seconds), style="dim"),
        )
    return drawn


def _fate(fate: Fate) -> tuple[str, str, str]:
    match fate:
        case Fate.ROOT:
            return "●", "re-runs", "bold green"
        case Fate.DOWNSTREAM:
            return "○", "re-runs", "green"
        case Fate.REUSED:
            return "·", "reused", "blue"
    assert_never(fate)


def _why(step: PlannedView) -> str:
    match step.fate:
        case Fate.ROOT:
            return "; ".join(step.reasons)
        case Fate.DOWNSTREAM:
            return "downstream of what re-runs"
        case Fate.REUSED if step.output_overridden:
            return "its output is overridden"
        case Fate.REUSED:
            return f"from call …{short_id(step.call_id)}" if step.call_id else ""
    assert_never(step.fate)
