"""One call of a step, drawn with its outputs and attempts."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dalsegno.cli.tables import indented
from dalsegno.cli.value_text import value_line
from dalsegno.cli.views import AttemptView, CallView
from dalsegno.cli.wording import seconds_text, state_style, state_text, time_text


def call_details(call: CallView) -> RenderableType:
    """Draw a call."""
    step = call.step
    parts: list[RenderableType] = [
        Text.assemble((step.invocation_id, "bold"), "  ", Text(state_text(step.state), style=state_style(step.state))),
        _facts(call),
    ]
    for attempt in call.failed_attempts:
        parts += [Text(), _attempt(attempt)]
    return Group(*parts)


def _facts(call: CallView) -> RenderableType:
    step = call.step
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("step", step.name)
    facts.add_row("call", step.call_id)
    if step.original_call_id:
        facts.add_row("reused from", step.original_call_id)
    if step.started_at is not None:
        facts.add_row("started", time_text(step.started_at))
    if step.seconds is not None:
        facts.add_row("took", seconds_text(step.seconds))
    if step.attempt > 1:
        facts.add_row("attempts", str(step.attempt))
    for output in call.outputs:
        facts.add_row(output.name, Text(value_line(output.value, width=200)))
        facts.add_row("", Text(f"artifact {output.artifact_id}, {output.codec}, {output.size:,} bytes", style="dim"))
    return indented(facts)


def _attempt(attempt: AttemptView) -> RenderableType:
    failure = attempt.failure
    kind = (failure.exception_type or "").rpartition(":")[2]
    when = f"{time_text(attempt.started_at)}, after {seconds_text(attempt.seconds)}" if attempt.started_at else ""
    lines: list[RenderableType] = [
        Text.assemble(
            (f"attempt {attempt.attempt} failed", "bold red"),
            f" ({state_text(failure.origin)}): ",
            ": ".join(filter(None, (kind, failure.message))),
        ),
        indented(Text(", ".join(filter(None, (when, attempt.executor and f"by {attempt.executor}"))), style="dim")),
    ]
    if failure.traceback:
        lines.append(indented(Text(failure.traceback.rstrip(), style="dim")))
    return Group(*lines)
