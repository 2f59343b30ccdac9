"""A page for a guided tour: headings, sentences, lines of code, tables side by side. Silent where JSON is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import RenderableType
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from dalsegno.cli.reporting import Report
from dalsegno.cli.tables import indented, table

_WIDTH = 80
"""Of sentences, however wide the terminal is."""


class Page:
    """Prints a tour, piece by piece."""

    def __init__(self, report: Report) -> None:
        self._report = report

    @property
    def width(self) -> int:
        """The width of sentences."""
        return min(_WIDTH, self._report.console.width)

    def heading(self, text: str) -> None:
        """Begin a part."""
        rule = Rule(Text(text, style="bold"), align="left", style="dim", characters="─")
        self._print("", rule, width=self.width)

    def say(self, text: str) -> None:
        """Print a paragraph; what stands between backquotes is drawn as code, and keeps them where nothing is drawn."""
        if not self._report.console.is_terminal:
            self._print("", Text(text), width=self.width)
            return
        drawn = Text()
        for place, piece in enumerate(text.split("`")):
            drawn.append(piece, style="cyan" if place % 2 else "")
        self._print("", drawn, width=self.width)

    def code(self, text: str) -> None:
        """Print lines of Python."""
        code = Syntax(text, "python", background_color="default", theme="ansi_dark")
        self._print("", indented(code, 4), width=self.width)

    def commands(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print command lines, each under what it does, for pasting; long ones go on after a backslash."""
        for what, command in rows:
            self._print("", Text(what, style="dim"), Text(f"  {command}", style="cyan"))

    def draw(self, renderable: RenderableType) -> None:
        """Print a table or the like."""
        self._print("", indented(renderable), width=self.width)

    def compare(self, headings: tuple[str, str], rows: Sequence[tuple[str, str, str]]) -> None:
        """Print two runs side by side; what differs stands out."""
        drawn: Table = table("", *headings)
        for name, before, after in rows:
            drawn.add_row(
                Text(name, style="dim"), Text(before), Text(after, style="" if before == after else "bold green")
            )
        self.draw(drawn)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something is under way, where somebody watches."""
        if self._report.is_json or not self._report.remarks.is_terminal:
            yield
            return
        with self._report.remarks.status(text):
            yield

    def _print(self, *renderables: RenderableType, width: int | None = None) -> None:
        if not self._report.is_json:
            for renderable in renderables:
                self._report.console.print(renderable, width=width)
