"""Plain data as ordinary JSON text: the fast path, and the canonical form that digests are taken over.

Plain means None, bool, int, float, str, list, and dict with string keys, of exactly these types. Such a value
is written as the JSON that any language would write. The key ``$type`` is what marks everything else, so a
dict that has it is not plain.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Any

from dalsegno.values.encoded import Encoded
from dalsegno.values.refusal import Refusal

JSON = "json"
TYPE_KEY = "$type"
PART = "part"

DECIMAL_TEXT_BITS = 10_000
"""Longer integers are written in hex: CPython reads and writes decimals of up to 4300 digits only."""

_SCALARS = frozenset({type(None), bool, int, float, str})
_ONLY_STR = {str}
_HASH_START = blake2b(JSON.encode() + b"\0", digest_size=32)

_write = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_write_sorted = JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode


def _refuse_constant(text: str) -> float:
    raise ValueError(f'{text} is not JSON; write {{"$type": "float", "value": "nan"}} (or "inf", "-inf")')


_read = JSONDecoder(parse_constant=_refuse_constant).decode

# What one look at a value found out.
_OTHER, _PLAIN, _PLAIN_UNSORTED = 0, 1, 2


def encode_plain(value: object) -> Encoded | None:
    """The JSON of a plain value; None where it is not plain or JSON cannot say it (nan, half a surrogate)."""
    if type(value) is int and value.bit_length() <= DECIMAL_TEXT_BITS:
        number = b"%d" % value
        return Encoded(JSON, number, json_digest(number), True)
    found = _look(value)
    if found == _OTHER:
        return None
    try:
        data = _write(value).encode()
        form = data if found == _PLAIN else _write_sorted(value).encode()
    except ValueError:
        return None
    return Encoded(JSON, data, json_digest(form), True)


def json_digest(canonical_form: bytes) -> bytes:
    """``digest_of("json", …)``, with the start of the hash made once."""
    state = _HASH_START.copy()
    state.update(canonical_form)
    return state.digest()


def _look(value: Any) -> int:
    kind = type(value)
    if kind in _SCALARS:
        return _PLAIN
    if kind is list:
        return _look_at_items(value, _PLAIN)
    if kind is dict:
        if value and (set(map(type, value)) != _ONLY_STR or TYPE_KEY in value):
            return _OTHER
        return _look_at_items(value.values(), _PLAIN if _is_sorted(value) else _PLAIN_UNSORTED)
    return _OTHER


def _is_sorted(keys: dict[str, Any]) -> bool:
    return len(keys) < 2 or list(keys) == sorted(keys)


def _look_at_items(items: Any, found: int) -> int:
    if set(map(type, items)) <= _SCALARS:
        return found
    for item in items:
        if type(item) not in _SCALARS:
            inner = _look(item)
            if inner == _OTHER:
                return _OTHER
            found = max(found, inner)
    return found


def read_json(data: bytes) -> Any:
    """Parse JSON text without interpreting its tags.

    Raises:
        Refusal: If it is not JSON.
    """
    try:
        return _read(str(data, "utf-8"))
    except JSONDecodeError as error:
        raise Refusal(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}", reason="INVALID_JSON"
        ) from None
    except ValueError as error:
        raise Refusal(f"not JSON: {error}", reason="INVALID_JSON") from None


def write_json(tree: Any) -> bytes:
    """JSON text of a tree that holds only what JSON has, keys in their order."""
    return _write(tree).encode()


def has_tags(data: bytes) -> bool:
    """Whether JSON text can hold anything but plain data; a cheap test that errs on the safe side."""
    return b'"$type"' in data


def canonical_text(tree: Any, part_digest: Callable[[Any], str] | None = None) -> str:
    """JSON text in which the order of dicts and sets does not count, nor the numbering of parts.

    Args:
        tree: JSON with tags.
        part_digest: Gives the digest of a part by its number, for trees that refer to parts.
    """
    return _write_sorted(_canonical_tree(tree, part_digest))


def _canonical_tree(tree: Any, part_digest: Callable[[Any], str] | None) -> Any:
    if type(tree) is list:
        return [_canonical_tree(item, part_digest) for item in tree]
    if type(tree) is not dict:
        return tree
    tag = tree.get(TYPE_KEY)
    if tag == PART and part_digest is not None:
        return {TYPE_KEY: PART, "digest": part_digest(tree.get("value"))}
    inner = {key: _canonical_tree(item, part_digest) for key, item in tree.items()}
    if tag in ("dict", "set", "frozenset", "counter") and type(inner.get("value")) is list:
        inner["value"] = sorted(inner["value"], key=_write_sorted)
    return inner
