"""Standard output and standard error, as text for people is drawn on them."""

from __future__ import annotations

import os
from typing import NoReturn

from rich.console import Console

from dalsegno.cli.exit_codes import NobodyReadsError

PIPED_WIDTH = 160
"""Of lines that no terminal breaks: wide enough that no name or ID is cut."""


class StandardConsole(Console):
    """One of the standard streams; lines are as wide as the terminal, or as ``COLUMNS`` says.

    Args:
        stderr: Whether it is standard error.
    """

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = PIPED_WIDTH

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command's end, where its exit code is decided."""
        raise NobodyReadsError
