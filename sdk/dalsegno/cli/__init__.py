"""The command line, ``dalsegno``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    from dalsegno.cli.app import run

    sys.exit(run(sys.argv[1:]))
