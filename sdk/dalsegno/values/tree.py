"""Structures as JSON with tags; what has no JSON form becomes a numbered part beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dalsegno.values.encoded import Encoded
from dalsegno.values.objects import OBJECT_FORMS, form_for
from dalsegno.values.plain import PART, TYPE_KEY
from dalsegno.values.refusal import Refusal
from dalsegno.values.standard import FORMS, PLAIN_WRITERS, READ_ONLY_FORMS, Form, tagged

_FORMS_BY_TAG: dict[str, Form] = {form.tag: form for form in (*FORMS.values(), *READ_ONLY_FORMS, *OBJECT_FORMS)}
_NUMPY_TAG = "numpy"


class TreeWriter:
    """Writes one structure; ``parts`` fills up as it goes.

    Args:
        encode_part: Encodes a value with a codec of its own, or raises `Refusal`.
        has_codec: Whether a registered codec takes the value, asked before the forms of user classes are.
    """

    def __init__(self, encode_part: Callable[[object], Encoded], has_codec: Callable[[object], bool]) -> None:
        self.parts: list[Encoded] = []
        self._encode_part = encode_part
        self._has_codec = has_codec

    def node(self, value: object) -> Any:
        kind = type(value)
        write = PLAIN_WRITERS.get(kind)
        if write is not None:
            return write(value, self)
        form = FORMS.get(kind)
        if form is None and not self._has_codec(value):
            form = _numpy_form(value) or form_for(kind)
        return self.part(value) if form is None else form.write(value, self)

    def items(self, values: Iterable[object]) -> list[Any]:
        nodes = []
        for index, value in enumerate(values):
            try:
                nodes.append(self.node(value))
            except Refusal as refusal:
                raise refusal.at(f"[{index}]") from None
        return nodes

    def part(self, value: object) -> Any:
        self.parts.append(self._encode_part(value))
        return tagged(PART, len(self.parts) - 1)

    def part_digest(self, number: int) -> str:
        return self.parts[number].digest.hex()


class TreeReader:
    """Reads a structure that `TreeWriter` wrote, or a person.

    Args:
        decode_part: Gives a fresh object for each part, by number.
    """

    def __init__(self, decode_part: Callable[[int], Any]) -> None:
        self._decode_part = decode_part

    def value(self, node: Any) -> Any:
        if type(node) is list:
            return self.items(node)
        if type(node) is not dict:
            return node
        if TYPE_KEY in node:
            return self._tagged(node)
        values = {}
        for key, item in node.items():
            try:
                values[key] = self.value(item)
            except Refusal as refusal:
                raise refusal.at(f'["{key}"]') from None
        return values

    def items(self, nodes: Sequence[Any]) -> list[Any]:
        values = []
        for index, node in enumerate(nodes):
            try:
                values.append(self.value(node))
            except Refusal as refusal:
                raise refusal.at(f"[{index}]") from None
        return values

    def _tagged(self, node: dict[str, Any]) -> Any:
        tag = node[TYPE_KEY]
        form = _form_of_tag(tag)
        if form is None and tag != PART:
            raise Refusal(
                f'{{"$type": {tag!r}}} is not a form that this version knows; a dict with a key "$type" is '
                'written {"$type": "dict", "value": [[key, value], …]}',
                reason="UNKNOWN_TAG",
            )
        try:
            return self._decode_part(node["value"]) if form is None else form.read(node, self)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise Refusal(f"not a valid {tag}: {type(error).__name__}: {error}", reason="INVALID_JSON") from error


def _numpy_form(value: object) -> Form | None:
    if type(value).__module__ != "numpy":
        return None
    from dalsegno.values.arrays import SCALAR, is_scalar

    return SCALAR if is_scalar(value) else None


def _form_of_tag(tag: object) -> Form | None:
    if tag == _NUMPY_TAG:
        from dalsegno.values.arrays import SCALAR

        return SCALAR
    return _FORMS_BY_TAG.get(tag) if isinstance(tag, str) else None
