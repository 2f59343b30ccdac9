"""Values against the JSON Schemas that were recorded for what they replace."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from dalsegno.v1.value_pb2 import Payload
from dalsegno.values import NO_VIEW, Encoded, json_view
from dalsegno_planner.core import problems
from dalsegno_planner.core.problems import Problem

_MOST_PROBLEMS = 20


def check_type(payload: Payload, schema: str, field: str) -> list[Problem]:
    """Check a value that is at hand and that JSON Schema can speak about; any other passes.

    Args:
        payload: The value.
        schema: JSON Schema as text; empty where nothing is known.
        field: How problems name the value; the place inside it is added.
    """
    if not schema or payload.WhichOneof("content") != "inline":
        return []
    view = json_view(Encoded(payload.codec, payload.inline, payload.digest, payload.canonical))
    if view is NO_VIEW:
        return []
    return [
        problems.usage("WRONG_TYPE", field + _path(error.absolute_path), _short(error.message))
        for error in _violations(view, schema)
    ]


def admits_uuid(schema: str) -> bool:
    """Whether a JSON Schema, as text, says that UUIDs are among the values."""
    return "uuid" in schema and _admits_uuid(document := json.loads(schema), document, frozenset())


def _admits_uuid(schema: Any, document: Any, seen: frozenset[str]) -> bool:
    if not isinstance(schema, dict):
        return False
    if schema.get("format") == "uuid":
        return True
    referred = str(schema.get("$ref", ""))
    place, _, name = referred.rpartition("/")
    if place == "#/$defs" and referred not in seen:
        return _admits_uuid(document.get("$defs", {}).get(name), document, seen | {referred})
    choices = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]
    return any(_admits_uuid(one, document, seen) for one in choices)


def _violations(view: Any, schema: str) -> list[jsonschema.ValidationError]:
    try:
        return list(islice(_validator(schema).iter_errors(view), _MOST_PROBLEMS))
    except (jsonschema.SchemaError, Unresolvable):
        return []  # a schema that says nothing useful refuses nothing


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    """Return what checks values against a schema: many are of the types of the same few functions."""
    document = json.loads(schema)
    return validator_for(document, default=jsonschema.Draft202012Validator)(document, registry=Registry())


def _path(steps: Iterable[str | int]) -> str:
    return "".join(f"[{json.dumps(step)}]" for step in steps)


def _short(message: str) -> str:
    # A message begins with the value and ends with what is wrong with it.
    return message if len(message) <= 300 else f"{message[:120]} … {message[-170:]}"
