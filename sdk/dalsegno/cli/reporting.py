"""Where a command's results and errors go: text for people, or one JSON document for programs."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import IO, TYPE_CHECKING

from dalsegno.cli.exit_codes import NobodyReadsError
from dalsegno.errors import DalsegnoError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

DEBUG_SETTING = "DALSEGNO_DEBUG"

_POINT = re.compile(r" *(- )?")


class OutputFormat(StrEnum):
    """What a command prints on standard output."""

    TEXT = "text"
    JSON = "json"


class Report:
    """What one command prints.

    Standard output gets the result: text, or exactly one JSON document. Everything else, progress and remarks, goes
    to standard error.
    """

    def __init__(self, output: OutputFormat) -> None:
        self.output = output

    @property
    def is_json(self) -> bool:
        """Whether a program reads standard output."""
        return self.output is OutputFormat.JSON

    @cached_property
    def console(self) -> Console:
        """Standard output, for text."""
        from dalsegno.cli.consoles import StandardConsole

        return StandardConsole(stderr=False)

    @cached_property
    def remarks(self) -> Console:
        """Standard error."""
        from dalsegno.cli.consoles import StandardConsole

        return StandardConsole(stderr=True)

    def document(self, document: Mapping[str, object]) -> None:
        """Print the one JSON document; nothing where text is asked for."""
        if self.is_json:
            print_document(document)

    def show(self, *renderables: RenderableType) -> None:
        """Print for people; nothing where a document is asked for."""
        if not self.is_json:
            for renderable in renderables:
                # Sentences are left to the terminal to break, so that a command in one can be copied as a whole.
                self.console.print(renderable, soft_wrap=isinstance(renderable, str), markup=False)

    def remark(self, text: str) -> None:
        """Say something beside the result."""
        self.remarks.print(text, markup=False, soft_wrap=True)


def keep_standard_output_for_documents() -> None:
    """Print documents where standard output is now, and send whatever else is written to it to standard error.

    The user's code may print, when it is imported and when it runs in this process, and so may what it starts.
    """
    global _documents
    sys.stdout.flush()
    _documents = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


_documents: IO[str] | None = None


def document_stream() -> IO[str]:
    """Return where documents are printed."""
    return _documents or sys.stdout


def print_document(document: Mapping[str, object]) -> None:
    """Print a JSON document where standard output is read."""
    stream = document_stream()
    try:
        stream.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")
        stream.flush()
    except BrokenPipeError:
        raise NobodyReadsError from None


def report_error(error: DalsegnoError, output: OutputFormat) -> None:
    """Print an error where those who read the output look for it."""
    if output is OutputFormat.JSON:
        print_document(error_document(error))
    else:
        _print_error(str(error))
    if debugging():
        traceback.print_exception(error)


def report_refusal(message: str, usage: str, output: OutputFormat) -> None:
    """Print what is wrong with the command line itself, and where to read how it is right."""
    if output is OutputFormat.JSON:
        print_document(_document("UsageError", "COMMAND_LINE", message, [], {}))
    else:
        _print_error(f"{message}\n{usage}" if usage else message)


def report_defect(error: Exception, output: OutputFormat) -> None:
    """Print an error that no part of Dal Segno accounts for."""
    kind = type(error).__name__
    if output is OutputFormat.JSON:
        print_document(_document(kind, "DEFECT", str(error), [], {}))
    if debugging():
        traceback.print_exception(error)
    elif output is OutputFormat.TEXT:
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" ({where[0].filename}:{where[0].lineno})" if where else ""
        _print_error(f"{kind}: {error}{place}\nThis is a defect. {DEBUG_SETTING}=1 shows the traceback.")


def debugging() -> bool:
    """Whether errors come with their traceback."""
    return os.environ.get(DEBUG_SETTING, "") not in ("", "0")


def error_document(error: DalsegnoError) -> dict[str, object]:
    """Return an error as a document."""
    problems = [{"field": one.field, "description": one.description} for one in error.problems]
    return _document(type(error).__name__, error.reason, error.message, problems, error.fields)


def _document(
    kind: str,
    reason: str,
    message: str,
    problems: Sequence[Mapping[str, str]],
    fields: Mapping[str, str],
) -> dict[str, object]:
    error = {
        "type": kind,
        "reason": reason,
        "message": message,
        "problems": list(problems),
        "fields": dict(fields),
    }
    return {"error": error}


def _print_error(text: str) -> None:
    from rich.text import Text

    from dalsegno.cli.consoles import StandardConsole

    console = StandardConsole(stderr=True)
    shown = hung("error: " + text, console.width) if console.is_terminal else "error: " + text
    drawn = Text(shown)
    drawn.stylize("bold red", 0, len("error: "))
    console.print(drawn, soft_wrap=True)


def hung(text: str, width: int) -> str:
    """Break lines at spaces, what goes on under the text of its point; a line whose words are too long stays whole."""
    return "\n".join(piece for line in text.split("\n") for piece in _hung(line, width))


def _hung(line: str, width: int) -> list[str]:
    point = _POINT.match(line)
    assert point is not None  # it matches anything
    hanging = " " * len(point[0])
    words = textwrap.TextWrapper(
        width, initial_indent=point[0], subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip
    return words.wrap(line[len(point[0]) :]) or [line]
