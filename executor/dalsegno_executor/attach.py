"""``python -m dalsegno_executor.attach``: the stream process of a script that is a runner itself."""

from __future__ import annotations

import sys

from dalsegno.grpc_polling import import_grpc


def main() -> int:
    """Serve the script that started this process, and return the exit code."""
    import_grpc()
    from dalsegno_executor.script import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
