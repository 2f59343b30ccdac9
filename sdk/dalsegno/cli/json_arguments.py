"""Options that take JSON: read strictly, and refused with the place of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from dalsegno.errors import UsageError

_SHOWN = 60


def json_object(option: str, text: str | None) -> dict[str, object]:
    """Read the object that an option was given; an empty one where it was not given.

    Args:
        option: Its name, for the error.
        text: JSON, or ``@`` and the name of a file that holds it.

    Raises:
        UsageError: If it is not JSON, or no object; with line and column.
    """
    if text is None:
        return {}
    value = json_value(option, text)
    if not isinstance(value, dict):
        raise UsageError(
            f'{option} takes a JSON object such as {{"name": 1}}, not {_kind(value)}',
            reason="INVALID_JSON",
            fields={"option": option},
        )
    return value


def json_objects(option: str, text: str | None) -> dict[str, Mapping[str, object]]:
    """Read an object whose values are objects themselves, such as ``{"train": {"rate": 0.1}}``.

    Raises:
        UsageError: If it is anything else.
    """
    outer = json_object(option, text)
    inner: dict[str, Mapping[str, object]] = {}
    for name, value in outer.items():
        if not isinstance(value, dict):
            raise UsageError(
                f'{option}: the entry "{name}" takes an object of inputs such as {{"rate": 0.1}}, not {_kind(value)}',
                reason="INVALID_JSON",
                fields={"option": option, "entry": name},
            )
        inner[name] = value
    return inner


def json_value(option: str, text: str, *, typed: bool = False) -> object:
    """Read any JSON value; ``@`` and a name reads a file.

    Args:
        option: Its name, for the error.
        text: JSON, or ``@`` and the name of a file that holds it.
        typed: Whether it was typed at a prompt of ours, so that no shell has had a look at it.

    Raises:
        UsageError: If it is not JSON, or the file cannot be read.
    """
    source, content = _content(option, text)
    try:
        return json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{source} is not JSON: line {error.lineno}, column {error.colno}: {_reworded(error.msg)}\n"
            f"{_pointed(error.doc, error.pos)}{_hint(content, typed=typed)}",
            reason="INVALID_JSON",
            fields={"option": option, "line": str(error.lineno), "column": str(error.colno)},
        ) from None
    except _RefusedError as error:
        raise UsageError(f"{source}: {error}", reason="INVALID_JSON", fields={"option": option}) from None


class _RefusedError(Exception):
    """JSON to Python's reader, but not to us."""


def _content(option: str, text: str) -> tuple[str, str]:
    if not text.startswith("@"):
        return option, text
    path = Path(text.removeprefix("@"))
    try:
        return f"{option} ({path})", path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"{option}: the file {str(path)!r} cannot be read: {why}",
            reason="UNREADABLE_FILE",
            fields={"option": option, "file": str(path)},
        ) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise _RefusedError(f'the name "{name}" is given twice')
        result[name] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is no JSON value")


def _reworded(message: str) -> str:
    return {"Expecting value": "a value was expected"}.get(message, message[:1].lower() + message[1:])


def _pointed(document: str, position: int) -> str:
    start = document.rfind("\n", 0, position) + 1
    end = document.find("\n", position)
    line = document[start : end if end >= 0 else len(document)]
    column = position - start
    cut = max(0, column - _SHOWN // 2)
    shown = line[cut : cut + _SHOWN].replace("\t", " ")
    return f"  {shown}\n  {' ' * (column - cut)}^"


def _hint(content: str, *, typed: bool) -> str:
    stripped = content.strip()
    if stripped and stripped.replace("_", "").replace(" ", "").isalnum() and not stripped[0].isdigit():
        if typed:
            return f'\na text is in double quotes: "{stripped}"'
        return f"\na text needs quotes of its own within those of the shell: '\"{stripped}\"'"
    if "'" in stripped and '"' not in stripped:
        return "\nJSON texts are in double quotes"
    if stripped.startswith("{") and '"' not in stripped:
        if typed:
            return "\nJSON names are in double quotes"
        return "\nJSON names are in double quotes; the shell may have taken yours: put single quotes around the whole"
    return ""


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
    return "an object"
