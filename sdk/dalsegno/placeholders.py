"""What stands for values while a pipeline is traced: outputs, which have none yet, and parameters, which have one."""

from __future__ import annotations

import dis
import os
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import wrapt

from dalsegno.errors import UsageError


class OutputPlaceholder:
    """An output of a step in a pipeline's graph. It can be passed on, and nothing else.

    Attributes:
        number: The number of the step in the graph.
        invocation_id: Its readable ID.
        output: The name of the output.
    """

    __slots__ = ("invocation_id", "number", "output")

    number: int
    invocation_id: str
    output: str

    def __init__(self, number: int, invocation_id: str, output: str) -> None:
        self.number = number
        self.invocation_id = invocation_id
        self.output = output

    def __repr__(self) -> str:
        return f"<output {self.output!r} of {self.invocation_id}>"

    def __getattr__(self, name: str) -> NoReturn:
        raise no_value(self, f"read its attribute {name!r}")


def no_value(placeholder: OutputPlaceholder, use: str) -> UsageError:
    """Return the error for using an output as if it had a value."""
    return UsageError(
        f"cannot {use}: {placeholder!r} has no value while the pipeline is traced. Pass it to a step and do "
        "it there, or use @flow, whose body runs with real values. (For several outputs annotate the step's "
        "return as "
        'tuple[Annotated[X, "a"], Annotated[Y, "b"]].)',
        reason="OUTPUT_WITHOUT_VALUE",
        fields={"invocation_id": placeholder.invocation_id, "output": placeholder.output},
    )


_USES = {
    "convert it to a truth value": "bool",
    "convert it to text": "str format bytes",
    "convert it to a number": "int float complex index round trunc floor ceil",
    "iterate over it": "iter next reversed aiter anext await",
    "take its length": "len length_hint",
    "take an element of it": "getitem setitem delitem contains",
    "compare it": "eq ne lt le gt ge hash",
    "call it": "call",
    "use it in a with statement": "enter exit aenter aexit",
    "compute with it": (
        "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift neg pos abs invert "
        "radd rsub rmul rtruediv rfloordiv rmod rdivmod rpow rmatmul rand ror rxor rlshift rrshift"
    ),
}


def _refusal(use: str) -> Callable[..., NoReturn]:
    def refuse(self: OutputPlaceholder, *args: object) -> NoReturn:
        raise no_value(self, use)

    return refuse


for _use, _names in _USES.items():
    for _name in _names.split():
        setattr(OutputPlaceholder, f"__{_name}__", _refusal(_use))


class Parameter(wrapt.ObjectProxy[Any]):
    """A parameter of a pipeline: behaves as its value, and remembers whether anybody looked."""

    def __init__(self, name: str, value: object, digest: bytes, looked_at: set[str]) -> None:
        super().__init__(value)
        self._self_name = name
        self._self_digest = digest
        self._self_looked_at = looked_at

    def __getattr__(self, name: str) -> Any:
        self._self_looked_at.add(self._self_name)
        return super().__getattr__(name)

    def __fspath__(self) -> str | bytes:
        self._self_looked_at.add(self._self_name)
        path: str | bytes = os.fspath(self.__wrapped__)
        return path

    @property  # type: ignore[misc]  # wrapt declares an attribute, and has a property
    def __class__(self) -> Any:
        self._self_looked_at.add(self._self_name)
        return self.__wrapped__.__class__


def _noticing(name: str) -> Callable[..., Any]:
    original = getattr(wrapt.ObjectProxy, name)

    def operation(self: Parameter, *args: Any) -> Any:
        self._self_looked_at.add(self._self_name)
        return original(self, *args)

    return operation


_OPERATIONS = (
    *(name for names in _USES.values() for name in names.split()),
    "repr iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor ilshift irshift dir reduce reduce_ex",
)

for _name in " ".join(_OPERATIONS).split():
    if hasattr(wrapt.ObjectProxy, f"__{_name}__"):
        setattr(Parameter, f"__{_name}__", _noticing(f"__{_name}__"))


def parameter_for(name: str, value: object, digest: bytes, looked_at: set[str], *, by_identity: bool) -> object:
    """Return what the body of a pipeline gets for a parameter.

    ``x is None`` and ``type(x)`` see through every stand-in, so where the code asks for identity, what is
    commonly asked about is passed as itself and counts as looked at.

    Args:
        name: The parameter.
        value: Its value.
        digest: The digest of the value.
        looked_at: Takes the name once the value is used for anything but being passed on.
        by_identity: Whether the code asks for identity.
    """
    if by_identity and (value is None or value is ... or isinstance(value, bool | type)):
        looked_at.add(name)
        return value
    return Parameter(name, value, digest, looked_at)


def asks_identity(function: Callable[..., Any]) -> bool:
    """Return whether a function, or a plain function of its module's globals that it names, uses ``is`` or `type`."""
    seen: set[types.CodeType] = set()
    return any(_code_asks_identity(code) for code in _codes(function, seen))


def _codes(function: Callable[..., Any], seen: set[types.CodeType]) -> Iterator[types.CodeType]:
    if not isinstance(function, types.FunctionType) or function.__code__ in seen:
        return
    for code in _with_nested(function.__code__):
        seen.add(code)
        yield code
        for name in code.co_names:
            yield from _codes(function.__globals__.get(name), seen)  # type: ignore[arg-type]


def _with_nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_nested(constant)


def _code_asks_identity(code: types.CodeType) -> bool:
    if "type" in code.co_names:
        return True
    return any("IS_OP" in it.opname or "_NONE" in it.opname for it in dis.get_instructions(code))
