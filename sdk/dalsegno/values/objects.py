"""The JSON forms of values whose class is the user's: dataclasses, Pydantic models, enums, named tuples.

They are rebuilt from their recorded fields without running ``__init__``, ``__post_init__`` or validators, so
that what comes back is what was stored. A field that the class has gained since gets its default.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from dalsegno.values.classes import class_name, find_class
from dalsegno.values.refusal import Refusal
from dalsegno.values.standard import Form, Reader, Writer, tagged


def form_for(kind: type) -> Form | None:
    """The form of a user's class, if it is of one of these sorts."""
    if issubclass(kind, enum.Enum):
        return ENUM
    if _is_model(kind):
        return MODEL
    if dataclasses.is_dataclass(kind):
        return DATACLASS
    if _is_named_tuple(kind):
        return NAMED_TUPLE
    return None


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def _is_model(kind: type) -> bool:
    # A class can only be a model where Pydantic is loaded already; nobody else pays for its import.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _class_of(node: dict[str, Any], expected: str, accepts: Any) -> Any:
    found = find_class(node["class"])
    if not accepts(found):
        raise Refusal(f"{node['class']} is not {expected} any more", reason="CLASS_CHANGED")
    return found


def _write_fields(fields: Iterable[tuple[str, object]], writer: Writer) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for name, value in fields:
        try:
            nodes[name] = writer.node(value)
        except Refusal as refusal:
            raise refusal.at(f".{name}") from None
    return nodes


def _read_fields(nodes: dict[str, Any], reader: Reader) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, node in nodes.items():
        try:
            values[name] = reader.value(node)
        except Refusal as refusal:
            raise refusal.at(f".{name}") from None
    return values


def _missing(cls: type, name: str) -> Refusal:
    return Refusal(
        f"{cls.__qualname__} has a required field {name!r} now, which was not recorded; give it a default",
        reason="CLASS_CHANGED",
    )


def _write_enum(value: enum.Enum, writer: Writer) -> Any:
    more = {"class": class_name(type(value))}
    if isinstance(value, enum.Flag):  # a combination of flags has no name of its own
        return tagged("enum", writer.node(value.value), **more)
    if type(value.value) in (str, int):
        more["shows"] = writer.node(value.value)  # for readers that do not have the class
    return tagged("enum", value.name, **more)


def _read_enum(node: dict[str, Any], reader: Reader) -> Any:
    cls = _class_of(node, "an enum", lambda found: issubclass(found, enum.Enum))
    if issubclass(cls, enum.Flag):
        return cls(reader.value(node["value"]))
    if node["value"] not in cls.__members__:
        raise Refusal(f"{cls.__qualname__} has no member {node['value']!r} any more", reason="CLASS_CHANGED")
    return cls[node["value"]]


def _write_dataclass(value: Any, writer: Writer) -> Any:
    cls = type(value)
    names = [field.name for field in dataclasses.fields(cls)]
    names += [name for name in getattr(value, "__dict__", ()) if name not in names and not _cached(cls, name)]
    fields = ((name, getattr(value, name)) for name in names if hasattr(value, name))
    return tagged("dataclass", _write_fields(fields, writer), **{"class": class_name(cls)})


def _cached(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), cached_property)


def _read_dataclass(node: dict[str, Any], reader: Reader) -> Any:
    cls = _class_of(node, "a dataclass", dataclasses.is_dataclass)
    values = _read_fields(node["value"], reader)
    for field in dataclasses.fields(cls):
        if field.name in values or not field.init:
            continue
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        else:
            raise _missing(cls, field.name)
    built = object.__new__(cls)
    for name, value in values.items():
        try:
            object.__setattr__(built, name, value)
        except AttributeError:
            raise Refusal(f"{cls.__qualname__} has no field {name!r} any more", reason="CLASS_CHANGED") from None
    return built


def _write_model(value: Any, writer: Writer) -> Any:
    more: dict[str, Any] = {"class": class_name(type(value)), "set": sorted(value.__pydantic_fields_set__)}
    if value.__pydantic_extra__:
        more["extra"] = writer.node(value.__pydantic_extra__)
    if value.__pydantic_private__:
        more["private"] = _write_fields(value.__pydantic_private__.items(), writer)
    fields = ((name, item) for name, item in value.__dict__.items() if not _cached(type(value), name))
    return tagged("model", _write_fields(fields, writer), **more)


def _read_model(node: dict[str, Any], reader: Reader) -> Any:
    import pydantic

    cls = _class_of(node, "a Pydantic model", lambda found: issubclass(found, pydantic.BaseModel))
    values = _read_fields(node["value"], reader)
    for name, field in cls.model_fields.items():
        if name not in values:
            if field.is_required():
                raise _missing(cls, name)
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
    extra = reader.value(node["extra"]) if "extra" in node else None
    built = cls.__new__(cls)
    built.__setstate__(
        {
            "__dict__": values,
            "__pydantic_fields_set__": set(node.get("set", node["value"])),
            "__pydantic_extra__": extra or ({} if cls.model_config.get("extra") == "allow" else None),
            "__pydantic_private__": _private(cls, _read_fields(node.get("private", {}), reader)),
        }
    )
    return built


def _private(cls: Any, recorded: dict[str, Any]) -> dict[str, Any] | None:
    if not cls.__private_attributes__:
        return None
    import pydantic_core

    defaults = {name: attribute.get_default() for name, attribute in cls.__private_attributes__.items()}
    known = {name: value for name, value in defaults.items() if value is not pydantic_core.PydanticUndefined}
    return {**known, **recorded}


def _write_named_tuple(value: Any, writer: Writer) -> Any:
    cls = type(value)
    fields = zip(cls._fields, value, strict=True)
    return tagged("namedtuple", _write_fields(fields, writer), **{"class": class_name(cls)})


def _read_named_tuple(node: dict[str, Any], reader: Reader) -> Any:
    cls = _class_of(node, "a named tuple", _is_named_tuple)
    values = _read_fields(node["value"], reader)
    if gone := values.keys() - set(cls._fields):
        raise Refusal(f"{cls.__qualname__} has no field {min(gone)!r} any more", reason="CLASS_CHANGED")
    defaults = cls._field_defaults
    for name in cls._fields:
        if name not in values and name not in defaults:
            raise _missing(cls, name)
    return tuple.__new__(cls, [values[name] if name in values else defaults[name] for name in cls._fields])


ENUM = Form("enum", _write_enum, _read_enum)
DATACLASS = Form("dataclass", _write_dataclass, _read_dataclass)
MODEL = Form("model", _write_model, _read_model)
NAMED_TUPLE = Form("namedtuple", _write_named_tuple, _read_named_tuple)
OBJECT_FORMS = (ENUM, DATACLASS, MODEL, NAMED_TUPLE)
