"""Flow inputs that were written by hand as JSON, as the types that the flow's annotations ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dalsegno.errors import UsageError
from dalsegno.schemas import UNKNOWN, from_json, input_annotations, validate

_PLAIN_IN_JSON = (dict, list, str)
"""What JSON has for everything that it has no type of its own for."""


def typed_input(function: Callable[..., Any], name: str, value: object) -> object:
    """Return an input as its annotation wants it: the model of a dict, the date of a text.

    A value that fits already, or fits in no way, is returned as it is: annotations are a help and never a hurdle.
    """
    annotation = _annotations(function).get(name, UNKNOWN)
    if annotation is UNKNOWN or type(value) not in _PLAIN_IN_JSON or annotation is type(value):
        return value
    if not validate(value, annotation, name):
        return value
    try:
        return from_json(value, annotation, name)
    except UsageError:
        return value


@lru_cache(maxsize=1024)
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    return input_annotations(function)
