"""The JSON forms of standard-library types.

Each type is written as ``{"$type": tag, "value": …}``; one `Form` says how it is written and how it is read.
Forms are chosen by exact type: a subclass has meaning of its own, which a form would lose.
"""

from __future__ import annotations

import base64
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from dalsegno.values.plain import DECIMAL_TEXT_BITS, TYPE_KEY, canonical_text
from dalsegno.values.refusal import Refusal

INLINE_BYTES = 4096
"""Bytes inside a structure are base64 up to this length, and a part of their own above."""


class Writer(Protocol):
    """What a form needs to write what is inside its value."""

    def node(self, value: object) -> Any: ...

    def items(self, values: Iterable[object]) -> list[Any]: ...

    def part(self, value: object) -> Any: ...

    def part_digest(self, number: int) -> str: ...


class Reader(Protocol):
    """What a form needs to read what is inside its value."""

    def value(self, node: Any) -> Any: ...

    def items(self, nodes: list[Any]) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one type are written and read; ``write`` gives the whole node."""

    tag: str
    write: Callable[[Any, Writer], Any]
    read: Callable[[dict[str, Any], Reader], Any]


def tagged(tag: str, value: Any, **more: Any) -> dict[str, Any]:
    """``{"$type": tag, "value": value, …}``."""
    return {TYPE_KEY: tag, "value": value, **more}


def write_int(value: int, writer: Writer) -> Any:
    return value if value.bit_length() <= DECIMAL_TEXT_BITS else tagged("int", hex(value))


def write_float(value: float, writer: Writer) -> Any:
    return value if math.isfinite(value) else tagged("float", repr(value))


def write_str(value: str, writer: Writer) -> Any:
    # Half a surrogate pair is a legal str with no UTF-8.
    if value.isascii() or _is_utf8(value):
        return value
    return tagged("surrogates", _base64(value.encode("utf-8", "surrogatepass")))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def write_list(value: list[object], writer: Writer) -> Any:
    return writer.items(value)


def write_dict(value: dict[object, object], writer: Writer) -> Any:
    if TYPE_KEY in value or not all(type(key) is str and _is_utf8(key) for key in value):
        return tagged("dict", _pairs(value, writer))
    nodes: dict[str, Any] = {}
    for key, item in value.items():
        try:
            nodes[key] = writer.node(item)  # type: ignore[index]
        except Refusal as refusal:
            raise refusal.at(f"[{_shown(key)}]") from None
    return nodes


def _pairs(value: dict[Any, object], writer: Writer) -> list[list[Any]]:
    pairs = []
    for key, item in value.items():
        try:
            pairs.append([writer.node(key), writer.node(item)])
        except Refusal as refusal:
            raise refusal.at(f"[{_shown(key)}]") from None
    return pairs


def _shown(key: object) -> str:
    return f'"{key}"' if type(key) is str else repr(key)


def _read_pairs(pairs: list[list[Any]], reader: Reader) -> list[tuple[Any, Any]]:
    return [(reader.value(key), reader.value(item)) for key, item in pairs]


def _sorted_items(value: Iterable[object], writer: Writer) -> list[Any]:
    nodes = [writer.node(item) for item in value]
    return sorted(nodes, key=lambda node: canonical_text(node, writer.part_digest))


def _write_bytes(value: bytes, writer: Writer) -> Any:
    return tagged("bytes", _base64(value)) if len(value) <= INLINE_BYTES else writer.part(value)


def _write_moment(tag: str, value: datetime | time, **more: Any) -> Any:
    zone = value.tzinfo
    if isinstance(zone, ZoneInfo) and zone.key:
        more["zone"] = zone.key
        value = value.replace(tzinfo=None)
    elif zone is not None and type(zone) is not timezone:
        raise Refusal(f"the time zone {zone!r} of a {tag} cannot be stored; use zoneinfo.ZoneInfo or datetime.timezone")
    if value.fold:
        more["fold"] = value.fold
    return tagged(tag, value.isoformat(), **more)


def _read_moment(node: dict[str, Any], parse: Callable[[str], Any]) -> Any:
    moment = parse(node["value"])
    if "zone" in node:
        moment = moment.replace(tzinfo=ZoneInfo(node["zone"]))
    return moment.replace(fold=node["fold"]) if "fold" in node else moment


def _text_form(tag: str, write: Callable[[Any], str], read: Callable[[str], Any]) -> Form:
    return Form(tag, lambda value, writer: tagged(tag, write(value)), lambda node, reader: read(node["value"]))


def _items_form(tag: str, read: Callable[[list[Any]], Any]) -> Form:
    return Form(
        tag,
        lambda value, writer: tagged(tag, writer.items(value)),
        lambda node, reader: read(reader.items(node["value"])),
    )


def _set_form(tag: str, read: Callable[[list[Any]], Any]) -> Form:
    return Form(
        tag,
        lambda value, writer: tagged(tag, _sorted_items(value, writer)),
        lambda node, reader: read(reader.items(node["value"])),
    )


def _pairs_form(tag: str, read: Callable[[list[tuple[Any, Any]]], Any]) -> Form:
    return Form(
        tag,
        lambda value, writer: tagged(tag, _pairs(value, writer)),
        lambda node, reader: read(_read_pairs(node["value"], reader)),
    )


_PATH = _text_form("path", str, Path)

FORMS: dict[type, Form] = {
    bytes: Form("bytes", _write_bytes, lambda node, reader: _bytes_of(node["value"])),
    bytearray: _text_form("bytearray", _base64, lambda text: bytearray(_bytes_of(text))),
    complex: Form(
        "complex",
        lambda value, writer: tagged("complex", writer.items([value.real, value.imag])),
        lambda node, reader: complex(*reader.items(node["value"])),
    ),
    Decimal: _text_form("decimal", str, Decimal),
    Fraction: _text_form("fraction", str, Fraction),
    UUID: _text_form("uuid", str, UUID),
    datetime: Form(
        "datetime",
        lambda value, writer: _write_moment("datetime", value),
        lambda node, reader: _read_moment(node, datetime.fromisoformat),
    ),
    time: Form(
        "time",
        lambda value, writer: _write_moment("time", value),
        lambda node, reader: _read_moment(node, time.fromisoformat),
    ),
    date: _text_form("date", date.isoformat, date.fromisoformat),
    timedelta: Form(
        "timedelta",
        lambda value, writer: tagged("timedelta", [value.days, value.seconds, value.microseconds]),
        lambda node, reader: timedelta(*node["value"]),
    ),
    PosixPath: _PATH,
    WindowsPath: _PATH,
    PurePosixPath: _text_form("posix_path", str, PurePosixPath),
    PureWindowsPath: _text_form("windows_path", str, PureWindowsPath),
    tuple: _items_form("tuple", tuple),
    deque: Form(
        "deque",
        lambda value, writer: tagged("deque", writer.items(value), maxlen=value.maxlen),
        lambda node, reader: deque(reader.items(node["value"]), node.get("maxlen")),
    ),
    set: _set_form("set", set),
    frozenset: _set_form("frozenset", frozenset),
    OrderedDict: _pairs_form("ordered_dict", OrderedDict),
    Counter: _pairs_form("counter", lambda pairs: Counter(dict(pairs))),
    range: Form(
        "range",
        lambda value, writer: tagged("range", [value.start, value.stop, value.step]),
        lambda node, reader: range(*node["value"]),
    ),
}

READ_ONLY_FORMS: tuple[Form, ...] = (
    _pairs_form("dict", dict),
    _text_form("float", repr, float),
    _text_form("int", hex, lambda text: int(text, 16)),
    _text_form("surrogates", str, lambda text: _bytes_of(text).decode("utf-8", "surrogatepass")),
)
"""Tags that plain types fall back to; their writing is decided above."""

PLAIN_WRITERS: dict[type, Callable[[Any, Writer], Any]] = {
    type(None): lambda value, writer: value,
    bool: lambda value, writer: value,
    int: write_int,
    float: write_float,
    str: write_str,
    list: write_list,
    dict: write_dict,
}
