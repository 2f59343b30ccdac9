"""``python -m dalsegno_planner``: a planner. What it takes, prints and returns, `dalsegno_planner.process` says."""

from __future__ import annotations

import sys

from dalsegno.grpc_polling import import_grpc


def main() -> int:
    """Run a planner until it is told to stop, and return its exit code."""
    import_grpc()
    from dalsegno_planner.process import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
