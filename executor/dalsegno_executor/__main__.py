"""``python -m dalsegno_executor MODULE_OR_FILE``: the same as ``dalsegno worker``."""

from __future__ import annotations

import sys

from dalsegno_executor.worker import run

if __name__ == "__main__":
    sys.exit(run())
