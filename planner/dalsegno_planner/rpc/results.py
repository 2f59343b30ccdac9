"""What a pipeline returns: the recorded shape, filled with the outputs of its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from dalsegno.v1.value_pb2 import Binding, FlowInputs, Outputs, Payload
from dalsegno.values import seal
from dalsegno_planner.core.execution import Execution, ExecutionState
from dalsegno_planner.core.ids import BODY, Number
from dalsegno_planner.rpc.values import payload_of
from dalsegno_planner.store import invocations
from dalsegno_planner.store.bindings import leaves
from dalsegno_planner.store.pool import Pool

_JSON = "json"


def only_source(execution: Execution) -> Number:
    """Return which invocation the result of a pipeline is of, where it is of one; else 0."""
    if execution.result_binding is None:
        return BODY
    numbers = set(_numbers(Binding.FromString(execution.result_binding)))
    return Number(numbers.pop()) if len(numbers) == 1 else BODY


async def pipeline_result(
    pool: Pool, execution: Execution, of_only_source: bytes | None = None
) -> Payload | Binding | None:
    """Return the result of a completed pipeline; None where it returns nothing.

    A structure is put together where all its parts are JSON and stored inline. Any other keeps its shape, with a value
    at each leaf, for who asks to put together.

    Args:
        pool: Where outputs are read that are not given.
        execution: The pipeline's.
        of_only_source: The outputs of the only invocation that it is of, if they have been read.
    """
    if execution.result_binding is None or execution.state is not ExecutionState.COMPLETED:
        return None
    binding = Binding.FromString(execution.result_binding)
    numbers = sorted(set(_numbers(binding)))
    if of_only_source is not None:
        stored: Mapping[int, bytes | None] = {numbers[0]: of_only_source}
    elif numbers:
        async with pool.acquire() as connection:
            stored = await invocations.outputs(connection, execution.id, numbers)
    else:
        stored = {}
    outputs = {number: Outputs.FromString(data) for number, data in stored.items() if data is not None}
    inputs = FlowInputs.FromString(execution.inputs)
    return _resolve(binding, outputs, inputs) or _filled(binding, outputs, inputs)


def _filled(binding: Binding, outputs: Mapping[int, Outputs], inputs: FlowInputs) -> Binding | None:
    """Return the shape with a value at each leaf; None where one is not there."""
    filled = Binding()
    filled.CopyFrom(binding)
    for _, leaf in leaves(filled):
        payload = _resolve(leaf, outputs, inputs)
        if payload is None:
            return None
        leaf.value.CopyFrom(payload)
    return filled


def _numbers(binding: Binding) -> Iterator[int]:
    return (leaf.output.number for kind, leaf in leaves(binding) if kind == "output")


def _resolve(binding: Binding, outputs: Mapping[int, Outputs], inputs: FlowInputs) -> Payload | None:
    match binding.WhichOneof("kind"):
        case "value":
            return binding.value
        case "flow_input":
            return inputs.values.get(binding.flow_input)
        case "output":
            of_step = outputs.get(binding.output.number, Outputs()).outputs
            return next((one.payload for one in of_step if one.name == binding.output.output), None)
    text = _json_text(binding, outputs, inputs)
    return payload_of(seal(_JSON, text.encode())) if text is not None else None


def _json_text(binding: Binding, outputs: Mapping[int, Outputs], inputs: FlowInputs) -> str | None:
    match binding.WhichOneof("kind"):
        case "list":
            return _joined(binding, outputs, inputs)
        case "tuple":
            items = _joined(binding, outputs, inputs)
            return None if items is None else f'{{"$type":"tuple","value":{items}}}'
        case "map":
            return _map_text(binding, outputs, inputs)
    payload = _resolve(binding, outputs, inputs)
    if payload is None or payload.codec != _JSON or payload.WhichOneof("content") != "inline":
        return None
    return payload.inline.decode()


def _joined(binding: Binding, outputs: Mapping[int, Outputs], inputs: FlowInputs) -> str | None:
    texts = [_json_text(item, outputs, inputs) for item in _items(binding)]
    whole = [text for text in texts if text is not None]
    return f"[{','.join(whole)}]" if len(whole) == len(texts) else None


def _map_text(binding: Binding, outputs: Mapping[int, Outputs], inputs: FlowInputs) -> str | None:
    pairs: list[tuple[str, str]] = []
    plain = True
    for entry in binding.map.entries:
        value = _json_text(entry.value, outputs, inputs)
        if entry.WhichOneof("key") == "text":
            key = json.dumps(entry.text, ensure_ascii=False)
            plain = plain and entry.text != "$type"
        else:
            key, plain = entry.encoded.inline.decode(), False
        if value is None:
            return None
        pairs.append((key, value))
    if plain:
        return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
    return '{"$type":"dict","value":[' + ",".join(f"[{key},{value}]" for key, value in pairs) + "]}"


def _items(binding: Binding) -> list[Binding]:
    return list(binding.list.items if binding.WhichOneof("kind") == "list" else binding.tuple.items)
