"""Values as JSON text written and read by people, shells and other languages."""

from __future__ import annotations

import json
from typing import Any

from dalsegno.errors import UsageError
from dalsegno.values.codec import TEXT
from dalsegno.values.encoded import Encoded
from dalsegno.values.plain import JSON, TYPE_KEY, has_tags


def parse_json_text(text: str | bytes) -> Any:
    """Parse JSON strictly: no duplicate keys, no NaN; tags are left as they are.

    Raises:
        UsageError: With the line and column.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}", reason="INVALID_JSON"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}", reason="INVALID_JSON") from None


NO_VIEW: Any = object()
"""What `json_view` gives for a value that JSON Schema cannot speak about, such as an array."""


def json_view(encoded: Encoded) -> Any:
    """A value as the JSON that the JSON Schema of its type describes, or `NO_VIEW`.

    Tuples and sets are arrays, dates their ISO text, dataclasses and models objects; no class is imported.
    """
    if encoded.codec == TEXT:
        return str(encoded.data, "utf-8")
    if encoded.codec != JSON:
        return NO_VIEW
    tree = json.loads(encoded.data)
    try:
        return _view(tree) if has_tags(encoded.data) else tree
    except _NoViewError:
        return NO_VIEW


class _NoViewError(Exception):
    """Some part of the value has no view."""


def _view(tree: Any) -> Any:
    if type(tree) is list:
        return [_view(item) for item in tree]
    if type(tree) is not dict:
        return tree
    if TYPE_KEY not in tree:
        return {key: _view(item) for key, item in tree.items()}
    value: Any = tree.get("value")
    match tree[TYPE_KEY]:
        case "tuple" | "set" | "frozenset" | "deque":
            return [_view(item) for item in value]
        case "dict" | "ordered_dict" | "counter":
            return {_view_of_key(key): _view(item) for key, item in value}
        case "dataclass" | "model" if list(value) == ["root"]:
            return _view(value["root"])
        case "dataclass" | "model":
            return {key: _view(item) for key, item in value.items()} | _view(tree.get("extra", {}))
        case "namedtuple":
            return [_view(item) for item in value.values()]
        case "enum" if "shows" in tree:
            return _view(tree["shows"])
        case "float":
            return float(value)
        case "int":
            return int(value, 16)
        case "numpy" if type(value) in (int, float, str, bool) and tree["dtype"][0] not in "mM":
            return value
        case "datetime" | "date" | "time" | "uuid" | "decimal" | "path" | "posix_path" | "windows_path":
            return value
        case _:
            raise _NoViewError


def _view_of_key(key: Any) -> str:
    view = _view(key)
    if type(view) not in (str, int):
        raise _NoViewError
    return str(view)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"the key {twice!r} comes twice"
        raise ValueError(message)
    return found


def _no_constant(text: str) -> float:
    message = f'{text} is not JSON; write {{"$type": "float", "value": "nan"}} (or "inf", "-inf")'
    raise ValueError(message)
