"""``python -m dalsegno_executor MODULE_OR_FILE``: the same as ``dalsegno worker``."""

from __future__ import annotations

import sys

from dalsegno.grpc_polling import import_grpc


def main() -> int:
    """Run a worker as the command line says, and return its exit code."""
    import_grpc()
    from dalsegno_executor.worker import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
