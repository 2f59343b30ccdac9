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
    parts: list[RenderableType] = [_headline(plan)]
    if plan.steps:
        parts += [Text(), _steps(plan)]
    hidden = plan.affected_count + plan.reused_count - len(plan.steps)
    if hidden:
        parts.append(Text(f"… and {hidden:,} more; --limit shows more of them", style="dim"))
    for wait in plan.waits:
        parts.append(Text.assemble(("asked again: ", "yellow"), wait))
    for warning in plan.warnings:
        parts.append(Text.assemble(("warning: ", "yellow"), warning))
    return Group(*parts)


def saved_text(plan: PlanView) -> str:
    """Return what reuse saves; empty where nothing does."""
    if not plan.reused_count:
        return ""
    least = "" if plan.is_complete else "at least "
    return f"{least}{seconds_text(plan.seconds_saved)} of work saved"


def _headline(plan: PlanView) -> Text:
    total = plan.affected_count + plan.reused_count
    saved = saved_text(plan)
    line = Text.assemble(
        f"A replay of {plan.source}: ",
        (f"{plan.affected_count:,} of {count_text(total, 'step')} re-run", "bold"),
        f", {plan.reused_count:,} reused",
    )
    return line.append(f": {saved}" if saved else "")


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
            why = "; ".join(step.reasons)
        case Fate.DOWNSTREAM:
            why = "downstream of what re-runs"
        case Fate.REUSED:
            why = f"from call …{short_id(step.call_id)}" if step.call_id else ""
        case _:
            assert_never(step.fate)
    if step.output_overridden:
        why = f"{why}; output overridden" if why else "output overridden"
    return why
