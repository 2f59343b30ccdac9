"""The difference between the calls that are recorded and those that a body made, drawn as a short diff."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dalsegno.divergences import DifferenceLine, Side, difference
from dalsegno.errors import Divergence

_STYLES = {Side.BOTH: "dim", Side.RECORDED: "red", Side.MADE: "green", Side.AHEAD: "dim"}
_MARKS = {Side.BOTH: " ", Side.RECORDED: "−", Side.MADE: "+", Side.AHEAD: " "}


def divergence_drawing(divergence: Divergence) -> RenderableType:
    """Draw where the two sequences part; nothing where the divergence is not about a call."""
    lines = list(difference(divergence))
    if not lines:
        return Group()
    drawn = Table.grid(padding=(0, 1))
    drawn.add_column(no_wrap=True)
    drawn.add_column(no_wrap=True, justify="right")
    drawn.add_column(overflow="fold")
    for line in lines:
        drawn.add_row(*_cells(line))
    heading = Text.assemble("Calls (", ("− recorded", "red"), ", ", ("+ made now", "green"), "):")
    return Padding(Group(Text(), heading, drawn), (0, 0, 0, 2), expand=False)


def _cells(line: DifferenceLine) -> tuple[Text, Text, Text]:
    style = _STYLES[line.side]
    call = Text(line.call, style=style)
    if line.remark:
        call.append(f"  {line.remark}", style="dim")
    return Text(_MARKS[line.side], style=f"bold {style}"), Text(str(line.position), style="dim"), call
