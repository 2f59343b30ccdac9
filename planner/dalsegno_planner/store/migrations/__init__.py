"""Numbered SQL files, applied in order and never changed once released; `store.migrate` runs them."""

from dalsegno_planner.store.migrate import migrate

__all__ = ["migrate"]
