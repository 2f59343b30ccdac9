"""Asks a person what an execution waits for: shows question and schema, and asks again on a bad answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from dalsegno.cli.json_arguments import json_value
from dalsegno.cli.tables import indented
from dalsegno.cli.views import WaitView
from dalsegno.cli.wording import time_text
from dalsegno.errors import UsageError

_SAYS_NOTHING_MORE = frozenset({"type", "title", "description", "default"})
_PLAIN_LIST = _SAYS_NOTHING_MORE | {"items"}
_PLAIN_OBJECT = _SAYS_NOTHING_MORE | {"properties", "required", "additionalProperties"}
_WORDS: Mapping[str, str] = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "null": "null",
}

A = TypeVar("A")

_YES = frozenset({"y", "yes", "true", "continue"})
_NO = frozenset({"n", "no", "false", "abort"})


def ask_until_accepted(
    wait: WaitView,
    *,
    show: Callable[[RenderableType], None],
    read: Callable[[str], str],
    send: Callable[[object], A],
) -> A:
    """Ask until an answer is accepted, and return what its acceptance returned.

    Args:
        wait: What is asked.
        show: Shows something to the person.
        read: Shows a prompt and reads a line.
        send: Sends an answer.

    Raises:
        EOFError: If nobody answers any more.
        DalsegnoError: If the answer cannot be given at all, such as when the wait has ended meanwhile.
    """
    show(question_text(wait))
    while True:
        line = read(prompt_of(wait.schema))
        try:
            return send(parse_answer(line, wait.schema))
        except UsageError as error:
            show(Text(_refusal(error), style="yellow"))
            show(Text("The wait is still open; try again, or leave with Ctrl-C.", style="dim"))


def _refusal(error: UsageError) -> str:
    # What an answer must be was shown with the question; here it is what is wrong with this one.
    if not error.problems:
        return str(error)
    return "\n".join(["that is no answer:", *(f"  - {one.field}: {one.description}" for one in error.problems)])


def question_text(wait: WaitView) -> RenderableType:
    """Draw a question with what an answer must be."""
    parts: list[RenderableType] = [
        Text.assemble(("? ", "yellow"), (wait.question or "Shall it continue?", "bold"), (f"  ({wait.name})", "dim"))
    ]
    if wait.schema is not None:
        parts.append(indented(Text(schema_text(wait.schema), style="dim")))
    if wait.deadline is not None:
        parts.append(indented(Text(f"until {time_text(wait.deadline)}", style="dim")))
    return Group(*parts)


def schema_text(schema: Mapping[str, object]) -> str:
    """Return what an answer must be: in words where that is simple, else as the JSON Schema itself."""
    words = _in_words(schema)
    if words is not None:
        return words
    fields = schema.get("properties")
    if schema.get("type") == "object" and isinstance(fields, dict) and schema.keys() <= _PLAIN_OBJECT:
        required = schema.get("required")
        needed = required if isinstance(required, list) else []
        lines = [_field_text(name, field, name in needed) for name, field in fields.items()]
        if None not in lines:
            return "\n".join(["a JSON object with", *(f"  {line}" for line in lines)])
    return "JSON that fits this schema:\n" + json.dumps(schema, indent=2, ensure_ascii=False)


def _field_text(name: str, schema: object, needed: bool) -> str | None:
    words = _in_words(schema) if isinstance(schema, dict) else None
    return None if words is None else f"{json.dumps(name)}: {words}{'' if needed else ', may be left out'}"


def _in_words(schema: Mapping[str, object]) -> str | None:
    choices = schema.get("enum")
    if isinstance(choices, list):
        return "one of " + ", ".join(json.dumps(one, ensure_ascii=False) for one in choices)
    kind, items = schema.get("type"), schema.get("items")
    if kind == "array" and isinstance(items, dict) and schema.keys() <= _PLAIN_LIST:
        each = _in_words(items)
        return None if each is None else f"a list, each item {each}"
    if not isinstance(kind, str) or schema.keys() - _SAYS_NOTHING_MORE:
        return None
    return _WORDS.get(kind)


def prompt_of(schema: Mapping[str, object] | None) -> str:
    """Return what stands before the cursor."""
    if schema is None or schema.get("type") == "boolean":
        return "[y/n] "
    return "text> " if _is_text(schema) else "JSON> "


def parse_answer(line: str, schema: Mapping[str, object] | None) -> object:
    """Read what was typed: texts as they are, yes and no for truth values, everything else as JSON.

    Raises:
        UsageError: If it is none of them.
    """
    text = line.strip()
    if schema is None or schema.get("type") == "boolean":
        if text.lower() in _YES | _NO:
            return text.lower() in _YES
        raise UsageError(f"{text!r} is neither yes nor no; answer y or n", reason="NOT_AN_ANSWER")
    if _is_text(schema):
        return line
    if not text:
        raise UsageError("nothing was typed", reason="NOT_AN_ANSWER")
    return json_value("the answer", text, typed=True)


def _is_text(schema: Mapping[str, object]) -> bool:
    choices = schema.get("enum")
    if isinstance(choices, list):
        return all(isinstance(one, str) for one in choices)
    return schema.get("type") == "string"
