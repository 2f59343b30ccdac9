"""What a step returns, as its named outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dalsegno.errors import UsageError
from dalsegno.steps import Step
from dalsegno.v1.value_pb2 import Outputs
from dalsegno.values import Encoded, decode
from dalsegno_executor.runner.environment import Environment


@dataclass(frozen=True, slots=True)
class StoredOutputs:
    """Outputs that are encoded, and stored where they are large."""

    names: tuple[str, ...]
    encoded: tuple[Encoded, ...]

    def values(self) -> list[Any]:
        """Return the values as whoever reads them gets them: new objects at every call."""
        return [decode(encoded) for encoded in self.encoded]


def store_outputs(step: Step[..., Any], value: object, environment: Environment, message: Outputs) -> StoredOutputs:
    """Encode and store what a step has returned, and name it in a message, which is empty.

    Raises:
        UsageError: If it does not fit the declared outputs, or a part has no codec or is too large.
        BackendError: If the object store cannot be written.
    """
    names = step.options.outputs
    encoded = []
    for name, part in zip(names, _split(step, names, value), strict=True):
        output = message.outputs.add()
        output.name = name
        stored, _ = environment.write(part, f"output {name!r} of step {step.name!r}", output.payload)
        encoded.append(stored)
    return StoredOutputs(names, tuple(encoded))


def joined(values: list[Any]) -> Any:
    """Return what a call with these outputs returns: the one value, or a tuple of several."""
    return values[0] if len(values) == 1 else tuple(values)


def _split(step: Step[..., Any], names: tuple[str, ...], value: object) -> tuple[object, ...]:
    if len(names) == 1:
        return (value,)
    if isinstance(value, tuple) and len(value) == len(names):
        return value
    came = f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a value of type {type(value).__qualname__}"
    raise UsageError(
        f"step {step.name!r} declares the outputs {', '.join(names)} and must return a tuple of {len(names)}; "
        f"it returned {came}",
        reason="WRONG_OUTPUTS",
        fields={"step": step.name},
    )
