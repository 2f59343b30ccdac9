"""What a stream process tells the people who watch it, on standard error."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write one line."""
    print(f"dalsegno worker: {text}", file=sys.stderr, flush=True)
