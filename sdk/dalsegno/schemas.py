"""What a function's annotations say: JSON Schema of its arguments, names of its outputs, checks of values.

Annotations are a help and never a hurdle: one that cannot be resolved or has no JSON Schema gives none, and
its values are not checked. Pydantic is loaded at the first use that needs it.
"""

from __future__ import annotations

import builtins
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from dalsegno.errors import Problem, UsageError
from dalsegno.values import encode, has_tags, interpret

if TYPE_CHECKING:
    from pydantic import TypeAdapter

JsonSchema = dict[str, Any]

DEFAULT_OUTPUT = "output"
UNKNOWN: Any = inspect.Parameter.empty
"""Stands for an annotation that is missing or cannot be resolved."""


def input_annotations(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each named argument, `UNKNOWN` where there is none."""
    return {
        name: _resolved(fn, parameter.annotation)
        for name, parameter in inspect.signature(fn).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def input_schemas(fn: Callable[..., Any]) -> dict[str, JsonSchema | None]:
    """The JSON Schema of each named argument, None where its annotation has none."""
    return {name: json_schema(annotation) for name, annotation in input_annotations(fn).items()}


def output_names(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's outputs.

    ``tuple[Annotated[X, "a"], Annotated[Y, "b"]]`` declares the outputs ``a`` and ``b``, and
    ``Annotated[X, "a"]`` the one output ``a``; anything else is one output, ``output``.

    Raises:
        UsageError: If only some elements are named, a name comes twice, or one is not an identifier.
    """
    annotation = _tolerant(fn, inspect.signature(fn).return_annotation)
    if typing.get_origin(annotation) is not tuple:
        name = _declared_name(annotation)
        return (name if name is not None and name.isidentifier() else DEFAULT_OUTPUT,)
    names = [_declared_name(element) for element in typing.get_args(annotation)]
    if not any(names):
        return (DEFAULT_OUTPUT,)
    return tuple(_checked_names(fn, names))


def output_annotations(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each output, `UNKNOWN` where there is none."""
    names = output_names(fn)
    annotation = _resolved(fn, inspect.signature(fn).return_annotation)
    if names == (DEFAULT_OUTPUT,) or typing.get_origin(annotation) is not tuple:
        return dict.fromkeys(names, annotation)
    return dict(zip(names, typing.get_args(annotation), strict=True))


def output_schemas(fn: Callable[..., Any]) -> dict[str, JsonSchema | None]:
    """The JSON Schema of each output, None where its annotation has none."""
    return {name: json_schema(annotation) for name, annotation in output_annotations(fn).items()}


def json_schema(annotation: Any) -> JsonSchema | None:
    """The JSON Schema of a type, with properties under their Python names; None where it has none."""
    adapter = _adapter(annotation)
    if adapter is None:
        return None
    from pydantic import PydanticUserError

    try:
        return adapter.json_schema(by_alias=False)
    except PydanticUserError:
        return None


def validate(value: object, annotation: Any, field: str = "value") -> list[Problem]:
    """Check a Python value against a type without converting it.

    Args:
        value: What a caller would pass.
        annotation: A type, or `UNKNOWN`, which everything fits.
        field: How problems name the value; what is inside it is added as a path.

    Returns:
        Everything that does not fit; empty where all is well or nothing is known.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return []
    from pydantic import ValidationError

    try:
        result = adapter.validate_python(value, strict=True)
    except ValidationError as error:
        return _problems(error, field)
    return list(_dicts_for_models(value, result, field))


def from_json(tree: Any, annotation: Any, field: str = "value") -> Any:
    """The Python value that parsed JSON stands for where a type is expected.

    ``{"lr": 0.1}`` becomes the model or dataclass, ``"2024-01-01"`` the date, and so on; a number in quotes
    does not become a number. JSON with ``$type`` tags says its types itself, and is only checked.

    Raises:
        UsageError: With everything that does not fit.
    """
    if has_tags(json.dumps(tree).encode()):
        value = interpret(tree)
        problems = validate(value, annotation, field)
    else:
        value, problems = _converted(tree, annotation, field)
    if problems:
        raise UsageError(
            f"{field} does not fit its type {_type_name(annotation)}",
            reason="WRONG_TYPE",
            fields={"field": field},
            problems=problems,
        )
    return value


def _dicts_for_models(value: Any, result: Any, field: str) -> Iterator[Problem]:
    # Pydantic makes models of dicts even when strict; the caller passes on the dict, which is no model.
    if isinstance(value, dict):
        if not isinstance(result, dict):
            yield Problem(field, f"input should be an instance of {type(result).__qualname__}, got {_shown(value)}")
            return
        for key in value.keys() & result.keys():
            yield from _dicts_for_models(value[key], result[key], field + _path((key,)))
    elif isinstance(value, list | tuple) and isinstance(result, list | tuple):
        for index, pair in enumerate(zip(value, result, strict=False)):
            yield from _dicts_for_models(*pair, f"{field}[{index}]")


def _converted(tree: Any, annotation: Any, field: str) -> tuple[Any, list[Problem]]:
    adapter = _adapter(annotation)
    if adapter is None:
        return tree, []
    from pydantic import ValidationError

    try:
        text = encode(tree).data
        return adapter.validate_json(text, strict=True, by_alias=True, by_name=True), []
    except ValidationError as error:
        return None, _problems(error, field)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    if annotation is UNKNOWN:
        return None
    try:
        return _cached_adapter(annotation)
    except TypeError:  # not hashable, as with a list in Annotated
        return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    from pydantic import ConfigDict, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(annotation)
    except PydanticUndefinedAnnotation:
        return None
    except PydanticUserError:
        pass
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticUndefinedAnnotation, PydanticUserError):
        return None


_cached_adapter = lru_cache(maxsize=1024)(_new_adapter)


def _problems(error: Any, field: str) -> list[Problem]:
    return [
        Problem(field + _path(entry["loc"]), f"{_lower(entry['msg'])}, got {_shown(entry['input'])}")
        for entry in error.errors(include_url=False)
    ]


def _path(location: tuple[object, ...]) -> str:
    return "".join(
        f".{step}"
        if isinstance(step, str) and step.isidentifier()
        else f"[{json.dumps(step) if isinstance(step, str) else repr(step)}]"
        for step in location
    )


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '…'}"


def _type_name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _declared_name(annotation: Any) -> str | None:
    if typing.get_origin(annotation) is not Annotated:
        return None
    return next((note for note in annotation.__metadata__ if isinstance(note, str)), None)


def _checked_names(fn: Callable[..., Any], names: list[str | None]) -> list[str]:
    given = [name for name in names if name is not None]
    problems = [
        Problem(f"output {index}", 'has no name; write Annotated[X, "name"] for each element or for none')
        for index, name in enumerate(names)
        if name is None
    ]
    problems += [Problem(name, "is not an identifier") for name in given if not name.isidentifier()]
    problems += [Problem(name, "comes twice") for name in sorted(set(given)) if given.count(name) > 1]
    if problems:
        raise UsageError(
            f"the outputs that {fn.__qualname__} declares cannot be used",
            reason="INVALID_OUTPUTS",
            fields={"function": fn.__qualname__},
            problems=problems,
        )
    return given


def _resolved(fn: Callable[..., Any], annotation: Any) -> Any:
    if annotation is inspect.Signature.empty:
        return UNKNOWN
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    plain: Any = inspect.unwrap(fn)
    try:
        hints = typing.get_type_hints(holder, plain.__globals__, _free_variables(plain), include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError):
        return UNKNOWN
    return hints["it"]


def _tolerant(fn: Callable[..., Any], annotation: Any) -> Any:
    """The annotation with a placeholder for each name that only type checkers see."""
    if not isinstance(annotation, str):
        return annotation
    plain: Any = inspect.unwrap(fn)
    names = _Names({**vars(builtins), **plain.__globals__, **_free_variables(plain)})
    try:
        return eval(annotation, {}, names)  # noqa: S307 - the user's own annotation, as get_type_hints does it
    except (AttributeError, TypeError, SyntaxError):
        return UNKNOWN


def _free_variables(fn: Any) -> dict[str, Any]:
    found = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


class _Placeholder:
    """Stands for a type that is not there at run time; takes every attribute and subscript."""

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, item: object) -> _Placeholder:
        return self

    def __or__(self, other: object) -> _Placeholder:
        return self

    __ror__ = __or__

    def __call__(self) -> None:
        """Being callable is what `typing` asks of a type."""


class _Names(dict[str, Any]):
    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__(known)

    def __missing__(self, name: str) -> _Placeholder:
        return _Placeholder()
