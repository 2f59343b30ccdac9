"""How a codec deep inside a structure says no, and how the place is told to the user."""

from __future__ import annotations

from dalsegno.errors import UsageError


class Refusal(Exception):
    """One part of a structure cannot be encoded or decoded; each container on the way up adds its step."""

    def __init__(self, message: str, *, reason: str = "UNSUPPORTED_VALUE") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.steps: list[str] = []

    def at(self, step: str) -> Refusal:
        """The same refusal, seen from one level further out; ``step`` is as in ``["rows"]`` or ``.name``."""
        self.steps.append(step)
        return self

    def as_usage_error(self) -> UsageError:
        path = "value" + "".join(reversed(self.steps))
        return UsageError(f"{path}: {self.message}", reason=self.reason, fields={"path": path})


def unsupported(value: object) -> Refusal:
    """The refusal of a value that no codec takes."""
    kind = type(value)
    return Refusal(
        f"no codec for type {kind.__module__}.{kind.__qualname__}; make it a dataclass, a Pydantic model or "
        "plain data, register a codec with dalsegno.values.register_codec, or allow pickle with "
        "DALSEGNO_ALLOW_PICKLE=1 (here and on the executors)",
        reason="NO_CODEC",
    )


NESTED_TOO_DEEPLY = "the value is nested too deeply, or contains itself; flatten it"
