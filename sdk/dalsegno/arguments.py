"""Arguments by parameter name, as they are recorded, and back into a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from dalsegno.errors import UsageError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Arguments(dict[str, object]):
    """Arguments by parameter name, defaults applied; `*args` is a tuple and `**kwargs` a dict.

    Attributes:
        defaulted: The parameters that were not passed. Nothing is known of where their values come from.
    """

    __slots__ = ("defaulted",)

    def __init__(self, values: Mapping[str, object] | Iterable[tuple[str, object]], defaulted: frozenset[str]) -> None:
        super().__init__(values)
        self.defaulted = defaulted


@lru_cache(maxsize=4096)
def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function."""
    return inspect.signature(function)


@lru_cache(maxsize=4096)
def _plain_names(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of the parameters if each takes one argument by position; binding those needs no signature."""
    parameters = signature_of(function).parameters
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameters) if all(p.kind in by_position for p in parameters.values()) else None


def bind_arguments(function: Callable[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object]) -> Arguments:
    """Return the arguments of a call by parameter name.

    Raises:
        UsageError: If they do not fit the function; the message names it and says what it takes.
    """
    names = _plain_names(function)
    if not kwargs and names is not None and len(args) == len(names):
        return Arguments(zip(names, args, strict=True), frozenset())
    signature = signature_of(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        raise UsageError(
            f"{name}(): {error}{_misspelt(signature, kwargs)}; it takes {name}{signature}",
            reason="WRONG_ARGUMENTS",
            fields={"function": name},
        ) from None
    passed = frozenset(bound.arguments)
    bound.apply_defaults()
    return Arguments(bound.arguments, frozenset(bound.arguments) - passed)


def _misspelt(signature: inspect.Signature, kwargs: Mapping[str, object]) -> str:
    """Name the first argument that has no parameter: where another one is missing, Python speaks only of that."""
    parameters = signature.parameters
    unknown = [name for name in kwargs if name not in parameters]
    if not unknown or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return ""
    from difflib import get_close_matches

    close = get_close_matches(unknown[0], parameters, n=1)
    return f"; there is no parameter {unknown[0]!r}" + (f", did you mean {close[0]!r}?" if close else "")


def call_arguments(
    function: Callable[..., Any], values: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Turn recorded arguments into those of a call of today's function.

    A parameter that was not recorded keeps its default, and a recorded one that the function does not have
    any more is an error of the call.

    Raises:
        UsageError: If a recorded argument has no parameter, or a parameter has neither value nor default.
    """
    names = _plain_names(function)
    if names is not None and len(names) == len(values) and all(name in values for name in names):
        return tuple([values[name] for name in names]), {}
    parameters = signature_of(function).parameters
    _check_known(function, values, parameters)
    _check_complete(function, values, parameters)
    args: list[object] = []
    kwargs: dict[str, object] = {}
    for name, parameter in parameters.items():
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                args.extend(cast("tuple[object, ...]", values.get(name, ())))
            case inspect.Parameter.VAR_KEYWORD:
                kwargs.update(cast("dict[str, object]", values.get(name, {})))
            case inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = values.get(name, parameter.default)
            case _:
                args.append(values.get(name, parameter.default))
    return tuple(args), kwargs


def _check_known(
    function: Callable[..., Any], values: Mapping[str, object], parameters: Mapping[str, inspect.Parameter]
) -> None:
    unknown = sorted(set(values) - set(parameters))
    if unknown:
        raise _mismatch(function, f"has no parameter {', '.join(map(repr, unknown))}", unknown[0])


def _check_complete(
    function: Callable[..., Any], values: Mapping[str, object], parameters: Mapping[str, inspect.Parameter]
) -> None:
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in values and parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIADIC
    ]
    if missing:
        raise _mismatch(function, f"needs {', '.join(map(repr, missing))}, which was not recorded", missing[0])


def _mismatch(function: Callable[..., Any], what: str, parameter: str) -> UsageError:
    name = getattr(function, "__name__", repr(function))
    return UsageError(
        f"{name}{signature_of(function)} {what}",
        reason="WRONG_ARGUMENTS",
        fields={"function": name, "parameter": parameter},
    )


def required_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters without a default."""
    return tuple(
        name
        for name, parameter in signature_of(function).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIADIC
    )
