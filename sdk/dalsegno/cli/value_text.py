"""Values of users, shortened to a line for people, or as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

_LINE = 60
_LARGE = 10_000
"""Elements above which an array is described rather than printed as JSON."""


def value_line(value: object, width: int = _LINE) -> str:
    """Return a value in one line of at most `width` characters."""
    described = _described(value)
    if described is None:
        described = json.dumps(json_form(value), ensure_ascii=False, default=str)
    return described if len(described) <= width else described[: width - 1] + "…"


def json_form(value: object) -> object:
    """Return a value as JSON can hold it; what has no JSON form becomes a description of itself."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case UUID() | Decimal():
            return str(value)
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return {"$type": "bytes", "size": len(value)}
        case Mapping():
            return {str(key): json_form(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_form(one) for one in value]
    return _object_form(value)


def _object_form(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    shape, listed = getattr(value, "shape", None), getattr(value, "tolist", None)
    if isinstance(shape, tuple) and callable(listed) and math.prod(shape) <= _LARGE:
        return json_form(listed())
    described = _described(value)
    if described is not None:
        return {"$type": _type_name(value), "shape": list(shape) if isinstance(shape, tuple) else None}
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {name: json_form(getattr(value, name)) for name in fields}
    return {"$type": _type_name(value), "text": str(value)}


def _described(value: object) -> str | None:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        kind = getattr(value, "dtype", "")
        return f"{type(value).__name__} {' × '.join(map(str, shape))} {kind}".rstrip()
    return None


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
