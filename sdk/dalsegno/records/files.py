"""Records in files: one JSON document, or JSON Lines. Either is read and written as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from dalsegno.errors import UsageError

STEPS_KEY = "steps"
RETURNS_KEY = "returns"
WHOLE_DOCUMENT = 64 * 1024 * 1024
"""Characters of a document up to which its keys may come in any order."""

_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_CHUNK = 1024 * 1024
_NEAR_THE_END = 16
_decode = json.JSONDecoder().raw_decode
_SPACE = " \t\n\r"


def record_items(record: str | Path | Mapping[str, Any] | Iterable[Any]) -> Iterator[Any]:
    """Yield the header of a record, its steps, and ``{"returns": …}`` where it says what it returns.

    Args:
        record: A path, a whole record as a dict, or the items themselves.

    Raises:
        UsageError: If it is nothing of the kind, or no JSON.
        OSError: If the file cannot be read.
    """
    if isinstance(record, str | Path):
        return _of_file(Path(record))
    if isinstance(record, Mapping):
        return _of_document(record)
    if isinstance(record, Iterable):
        return iter(record)
    raise UsageError(
        f"a record is a path, a dict, or an iterator over its header and its steps, not {record!r}",
        reason="INVALID_RECORD",
    )


def is_lines(path: Path) -> bool:
    """Return whether a file of this name has the form of JSON Lines."""
    return path.suffix.lower() in _LINES_SUFFIXES


def write_lines(file: IO[str], items: Iterable[Any]) -> None:
    """Write a record as JSON Lines."""
    file.writelines(_text(item) + "\n" for item in items)


def write_document(file: IO[str], items: Iterable[Any]) -> None:
    """Write a record as one document, with a line for each step."""
    rest = iter(items)
    header = _text(next(rest))
    file.write(f'{header[:-1]},\n "{STEPS_KEY}": [')
    first, returns = True, None
    for item in rest:
        if RETURNS_KEY in item:
            returns = item[RETURNS_KEY]
            continue
        file.write(f"{'' if first else ','}\n  {_text(item)}")
        first = False
    file.write("\n ]")
    if returns is not None:
        file.write(f',\n "{RETURNS_KEY}": {_text(returns)}')
    file.write("}\n")


def as_document(items: Iterable[Any]) -> dict[str, Any]:
    """Return a record as one dict."""
    header, *rest = items
    document = {**header, STEPS_KEY: [item for item in rest if RETURNS_KEY not in item]}
    for item in rest:
        document |= item if RETURNS_KEY in item else {}
    return document


def _of_document(document: Mapping[str, Any]) -> Iterator[Any]:
    yield {key: value for key, value in document.items() if key not in (STEPS_KEY, RETURNS_KEY)}
    yield from document.get(STEPS_KEY) or ()
    if document.get(RETURNS_KEY) is not None:
        yield {RETURNS_KEY: document[RETURNS_KEY]}


def _of_file(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        start = file.readline() if is_lines(path) else file.readline(_CHUNK)
        header = _whole_line(start)
        if isinstance(header, dict) and (is_lines(path) or STEPS_KEY not in header):
            yield header
            yield from _lines(file)
            return
        start += file.read(WHOLE_DOCUMENT - len(start))
        if len(start) < WHOLE_DOCUMENT:
            yield from _of_document(_document(start))
        else:
            yield from _Stream(start, file).items()


def _whole_line(line: str) -> Any:
    try:
        return json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None


def _lines(file: IO[str]) -> Iterator[Any]:
    for number, line in enumerate(file, 2):
        if line != "\n":
            try:
                item = json.loads(line)
            except ValueError as error:
                raise _no_json(f"line {number}: {error}") from None
            yield item


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _no_json(str(error)) from None
    if type(document) is not dict:
        raise _no_json("a record is an object")
    return document


class _Stream:
    """A document that is too large to be read at once."""

    def __init__(self, text: str, file: IO[str]) -> None:
        self._text = text
        self._at = 0
        self._passed = 0
        self._file = file

    def items(self) -> Iterator[Any]:
        """Yield what `record_items` yields."""
        header: dict[str, Any] = {}
        self._expect("{")
        came: list[str] = []
        while self._look() != "}":
            if header or came:
                self._expect(",")
            key = self._value()
            self._expect(":")
            if key == STEPS_KEY:
                yield header
                yield from self._elements()
            elif STEPS_KEY in came:
                yield self._after_steps(key)
            else:
                header[key] = self._value()
            came.append(key)
        if STEPS_KEY not in came:
            yield header

    def _elements(self) -> Iterator[Any]:
        self._expect("[")
        if self._look() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            if self._look() == "]":
                self._at += 1
                return
            self._expect(",")

    def _after_steps(self, key: str) -> dict[str, Any]:
        if key != RETURNS_KEY:
            raise UsageError(
                f"the key {key!r} comes after {STEPS_KEY!r}; in a record of this size only {RETURNS_KEY!r} may",
                reason="INVALID_RECORD",
                fields={"key": key},
            )
        return {RETURNS_KEY: self._value()}

    def _look(self) -> str:
        """Return the next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        if self._look() != character:
            raise _no_json(f"expected {character!r} at character {self._passed + self._at}")
        self._at += 1

    def _value(self) -> Any:
        first = self._look()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _NEAR_THE_END
                if not unfinished or not self._more():
                    raise _no_json(f"{error.msg} at character {self._passed + error.pos}") from None
                continue
            # A number may go on in the next part.
            if end < len(self._text) or first in '"{[' or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        rest = self._text[self._at :]
        part = self._file.read(max(_CHUNK, len(rest)))
        self._passed += self._at
        self._text, self._at = rest + part, 0
        return bool(part)


def _no_json(what: str) -> UsageError:
    return UsageError(f"the record is no JSON: {what}", reason="INVALID_JSON")


_text = json.JSONEncoder(ensure_ascii=False).encode
