"""What an execution returned, from what a planner says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dalsegno.v1.execution_pb2 import Execution
    from dalsegno.v1.value_pb2 import Binding, BindingEntry, Payload

Load = Callable[["Payload"], Any]


def result_of(message: Execution, load: Load) -> Any:
    """Return what an execution returned; None before it has.

    Args:
        message: The execution.
        load: Returns the value of a payload.
    """
    if message.HasField("result"):
        return load(message.result)
    return _put_together(message.result_parts, load) if message.HasField("result_parts") else None


def _put_together(binding: Binding, load: Load) -> Any:
    match binding.WhichOneof("kind"):
        case "list":
            return [_put_together(item, load) for item in binding.list.items]
        case "tuple":
            return tuple(_put_together(item, load) for item in binding.tuple.items)
        case "map":
            return {_key(entry, load): _put_together(entry.value, load) for entry in binding.map.entries}
    return load(binding.value)


def _key(entry: BindingEntry, load: Load) -> Any:
    return load(entry.encoded) if entry.WhichOneof("key") == "encoded" else entry.text
