"""The embedded engine: a Postgres and a planner of the user's own, started on first use."""

from __future__ import annotations

from dalsegno.errors import BackendError

try:
    from dalsegno.local.engine import EngineStatus, down, ensure_engine, status, up
except ModuleNotFoundError as error:
    if error.name == "psutil":
        raise BackendError(
            "The embedded engine is not installed: pip install 'dalsegno[local]', or set DALSEGNO_ADDRESS to a planner "
            "that runs elsewhere."
        ) from error
    if error.name == "fcntl":
        raise BackendError(
            "The embedded engine runs on Linux and macOS only; set DALSEGNO_ADDRESS to a planner that runs elsewhere."
        ) from error
    raise

__all__ = ["EngineStatus", "down", "ensure_engine", "status", "up"]
