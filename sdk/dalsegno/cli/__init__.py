"""The command line, ``dalsegno``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    from dalsegno.cli.app import output_of, run
    from dalsegno.cli.reporting import OutputFormat, keep_standard_output_for_documents

    if output_of(sys.argv[1:]) is OutputFormat.JSON:
        keep_standard_output_for_documents()
    sys.exit(run(sys.argv[1:]))
