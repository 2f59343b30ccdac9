"""Times, durations, counts and states in words, the same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime

from dalsegno.states import ExecutionState, InvocationState

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

_STYLES = {
    "pending": "dim",
    "ready": "dim",
    "leased": "cyan",
    "running": "cyan",
    "waiting": "yellow",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "reused": "blue",
    "not_reached": "dim",
}


def seconds_text(seconds: float | None) -> str:
    """Return a duration: ``0.8 ms``, ``12 ms``, ``1.24 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return ""
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def ago_text(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was: ``12 s ago``; past a day its date."""
    if moment is None:
        return ""
    seconds = max(0, round((now - moment).total_seconds()))
    if seconds >= _DAY:
        return moment.astimezone(UTC).strftime("%Y-%m-%d")
    if seconds >= _HOUR:
        return f"{seconds // _HOUR} h ago"
    if seconds >= _MINUTE:
        return f"{seconds // _MINUTE} min ago"
    return f"{seconds} s ago"


def time_text(moment: datetime | None) -> str:
    """Return a moment in UTC."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 step``, ``1,200 steps``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def short_id(identifier: str) -> str:
    """Return the end of an ID, by which commands know it as well as by all of it."""
    return identifier.rpartition("-")[2]


def state_text(state: ExecutionState | InvocationState | str) -> str:
    """Return a state as people read it."""
    return str(state).replace("_", " ")


def state_style(state: ExecutionState | InvocationState | str) -> str:
    """Return the style that a state is drawn in."""
    return _STYLES.get(str(state), "")
