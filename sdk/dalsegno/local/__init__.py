"""The embedded engine: a Postgres and a planner of the user's own, started on first use."""

from __future__ import annotations

from dalsegno.local.engine import EngineStatus, down, ensure_engine, status, up

__all__ = ["EngineStatus", "down", "ensure_engine", "status", "up"]
