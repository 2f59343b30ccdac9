"""Executions and their steps, drawn as tables and trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dalsegno.cli.divergence_drawing import divergence_drawing
from dalsegno.cli.value_text import value_line
from dalsegno.cli.views import ExecutionView, StepView, WaitView
from dalsegno.cli.wording import (
    ago_text,
    count_text,
    seconds_text,
    short_id,
    state_style,
    state_text,
    time_text,
)
from dalsegno.lanes import Lane
from dalsegno.states import ExecutionState, InvocationState

_EXECUTION_COLUMNS = (
    ("name", "ID ends in", "runs", "state", "created", "took"),
    ("name", "runs", "state", "created", "took"),
    ("name", "runs", "state", "took"),
)
"""What a list of executions shows: less of it where the terminal is narrow."""
_UNBOUNDED = 10_000


class Fitting:
    """The first of some drawings that is no wider than the terminal; the last where all are.

    Args:
        drawings: The fullest first.
    """

    def __init__(self, *drawings: RenderableType) -> None:
        self._drawings = drawings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        unbounded = options.update(max_width=_UNBOUNDED)
        for drawing in self._drawings[:-1]:
            if Measurement.get(console, unbounded, drawing).maximum <= options.max_width:
                yield drawing
                return
        yield self._drawings[-1]


def table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Return an empty table in the manner of all of ours.

    Args:
        columns: Their headings.
        right: Those that are flush right; they are not broken either.
        whole: Those whose cells are not broken, so that they can be copied.
    """
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for column in columns:
        drawn.add_column(
            column,
            justify="right" if column in right else "left",
            header_style="bold",
            overflow="fold",
            no_wrap=column in right or column in whole,
        )
    return drawn


def indented(renderable: RenderableType, by: int = 2) -> RenderableType:
    """Move something to the right, without filling its lines up to the edge."""
    return Padding(renderable, (0, 0, 0, by), expand=False)


def executions_table(
    executions: Sequence[ExecutionView], now: datetime, project: str, *, some: bool = False
) -> RenderableType:
    """Draw a list of executions, the newest first; `some` says that not all were asked for."""
    if not executions and some:
        return Text(f"No such executions in the project {project}.")
    if not executions:
        return Text(f"No executions in the project {project} yet. Take the tour: dalsegno demo")
    rows = [_execution_cells(one, now) for one in executions]
    return Fitting(*(_columns_of(rows, names) for names in _EXECUTION_COLUMNS))


def _columns_of(rows: Sequence[Mapping[str, Text]], columns: Sequence[str]) -> Table:
    drawn = table(*columns, right=("took",), whole=("name", "state"))
    for row in rows:
        drawn.add_row(*(row[column] for column in columns))
    return drawn


def _execution_cells(one: ExecutionView, now: datetime) -> Mapping[str, Text]:
    return {
        "name": Text(one.name, style="bold"),
        "ID ends in": Text(short_id(one.exec_id)),
        "runs": Text.assemble(one.flow, (" (replay)", "dim") if one.original_exec_id else ""),
        "state": _state(one.state),
        "created": Text(ago_text(one.created_at, now)),
        "took": Text(seconds_text(one.seconds)),
    }


def execution_details(execution: ExecutionView, steps: Sequence[StepView], hidden: int = 0) -> RenderableType:
    """Draw one execution with its steps; `hidden` says how many more there are."""
    parts: list[RenderableType] = [
        Text.assemble((execution.name, "bold"), "  ", _state(execution.state)),
        _facts(execution),
    ]
    if steps:
        parts += [Text(), steps_table(steps)]
    if hidden:
        parts.append(Text(f"… and {hidden:,} more; --limit shows more of them", style="dim"))
    parts += [Text.assemble(("warning: ", "yellow"), text) for text in execution.warnings]
    if execution.failure is not None:
        parts += [Text(), failure_text(execution)]
    return Group(*parts)


def _facts(execution: ExecutionView) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("ID", execution.exec_id)
    facts.add_row("runs", f"{execution.kind} {execution.flow}")
    if execution.original_exec_id:
        facts.add_row("replay of", execution.original_name or execution.original_exec_id)
    facts.add_row("created", _when(execution))
    for name, value in execution.inputs.items():
        changed = "  (changed by this replay)" if name in execution.overridden_inputs else ""
        facts.add_row(f"input {name}", Text(f"{value_line(value)}{changed}"))
    if execution.result is not None:
        facts.add_row("result", Text(value_line(execution.result, width=200)))
    if execution.lane is not Lane.LIVE or execution.priority:
        facts.add_row("lane", f"{execution.lane}, priority {execution.priority}")
    if execution.deadline is not None and not execution.state.finished:
        facts.add_row("deadline", time_text(execution.deadline))
    if execution.pending_reason:
        facts.add_row("held up by", Text(execution.pending_reason, style="yellow"))
    return indented(facts)


def _when(execution: ExecutionView) -> str:
    took = f", took {seconds_text(execution.seconds)}" if execution.seconds is not None else ""
    return f"{time_text(execution.created_at)}{took}"


def steps_table(steps: Sequence[StepView]) -> RenderableType:
    """Draw what became of each step."""
    drawn = table("step", "state", "took", "notes", right=("took",))
    for step in steps:
        drawn.add_row(
            Text(f"? {step.invocation_id}" if step.is_wait else step.invocation_id),
            _state(step.state),
            Text(_took(step)),
            Text(", ".join(_notes(step)), style="dim"),
        )
    return drawn


def _took(step: StepView) -> str:
    text = seconds_text(step.seconds)
    return f"({text})" if text and step.state is InvocationState.REUSED else text


def _notes(step: StepView) -> list[str]:
    notes = []
    if step.state is InvocationState.REUSED and step.call_id:
        notes.append(f"from call …{short_id(step.call_id)}")
    if step.output_overridden:
        notes.append("output overridden")
    if step.overridden_inputs:
        notes.append(f"{', '.join(step.overridden_inputs)} overridden")
    if step.stale_inputs:
        notes.append("stale inputs")
    if step.attempt > 1:
        notes.append(f"attempt {step.attempt}")
    if step.progress is not None and step.state is not InvocationState.COMPLETED:
        notes.append(str(step.progress))
    if step.failure is not None:
        notes.append(_first_line(step.failure.message))
    return notes


def failure_text(execution: ExecutionView) -> RenderableType:
    """Draw why an execution failed or was cancelled, with the traceback that was recorded."""
    failure = execution.failure
    assert failure is not None
    if execution.state is ExecutionState.CANCELLED:
        return Text(failure.message)  # it says so itself, and by whom or why
    where = f" in {failure.invocation_id}" if failure.invocation_id else ""
    kind = (failure.exception_type or "").rpartition(":")[2]
    lines: list[RenderableType] = [
        Text.assemble(
            ("failed", "bold red"),
            f"{where} ({state_text(failure.origin)}): ",
            ": ".join(filter(None, (kind, failure.message))),
        )
    ]
    if failure.divergence is not None:
        lines.append(divergence_drawing(failure.divergence))
    if failure.traceback:
        lines.append(indented(Text(failure.traceback.rstrip(), style="dim")))
    return Group(*lines)


def graph_lines(execution: ExecutionView, steps: Sequence[StepView], hidden: int = 0) -> RenderableType:
    """Draw the graph: each step in order, with what it takes something from."""
    head = Text.assemble((execution.name, "bold"), f"  {execution.flow}, {count_text(execution.step_count, 'step')}")
    drawn = Table.grid(padding=(0, 1))
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    drawn.add_column(overflow="fold")
    for step in steps:
        # A space where nothing is: rich takes a column of nothing out of the width that the others have.
        arrow = Text.assemble(("← ", "dim"), ", ".join(step.upstream)) if step.upstream else Text(" ")
        mark = "?" if step.is_wait else "●"
        drawn.add_row(Text(mark, style=state_style(step.state)), Text(step.invocation_id), arrow)
    parts: list[RenderableType] = [head, indented(drawn)]
    if hidden:
        parts.append(Text(f"… and {hidden:,} more; --limit shows more of them", style="dim"))
    return Group(*parts)


def waits_text(waits: Sequence[WaitView]) -> RenderableType:
    """Draw the questions that an execution asks."""
    return Group(
        *(Text.assemble(("? ", "yellow"), (wait.name, "bold"), f"  {wait.question or 'continue?'}") for wait in waits)
    )


def _state(state: object) -> Text:
    return Text(state_text(str(state)), style=state_style(str(state)))


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
