"""The digest of a step's code: the same wherever the code means the same.

It covers the function's own source and, transitively, what of the *project* that names: functions, classes with
their bases, module-level constants, decorators, and what closures hold. Of these the meaning counts: not comments,
formatting, docstrings, the place of a definition, or the version of Python; nor the options of Dal Segno's own
decorators, which do not change results.

The project is the function's top-level package and whatever lies in the same folder tree, except installed packages
and the standard library. What is reached only through values (``getattr``, arguments, a registry) is not seen.

A function without source (typed into a REPL, made by ``exec``) is digested by its bytecode, which does differ
between versions of Python.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from dalsegno.code_syntax import (
    Import,
    OutsideNames,
    bindings,
    class_node,
    dotted_name,
    function_node,
    module_tree,
    normal_text,
)
from dalsegno.values.classes import main_module_name

_FORMAT = "dalsegno-code-1"
_OWN_PACKAGE = "dalsegno"
_OWN_DECORATORS = frozenset({"flow", "pipeline", "step", "checkpoint"})
_SCALARS = (type(None), bool, int, float, complex, str, bytes)

_known: weakref.WeakKeyDictionary[Any, dict[bool, str]] = weakref.WeakKeyDictionary()


def code_digest(fn: Callable[..., Any], *, follow_steps: bool = True) -> str:
    """The digest of a function's code, 64 hex digits.

    Taken from the source files as they are at the first call, and remembered for the function: call it when the code
    is loaded.

    Args:
        fn: A function, or anything that wraps one (``functools.wraps``, or an attribute ``function``).
        follow_steps: Whether the code of steps that it calls counts, as it does when a step calls another; for the
            body of a flow, whose steps have digests of their own, it should not.
    """
    function = plain_function(fn)
    digests = _known.setdefault(function, {})
    if follow_steps not in digests:
        digests[follow_steps] = _Digest(Project.of(function), follow_steps).of(function)
    return digests[follow_steps]


def plain_function(wrapper: Any) -> Any:
    """The function inside decorator objects, wrappers and bound methods."""
    while True:
        inner = inspect.unwrap(wrapper) if callable(wrapper) else wrapper
        if isinstance(inner, MethodType):
            inner = inner.__func__
        elif not isinstance(inner, FunctionType | type) and callable(inner):
            inner = getattr(inner, "function", inner)
        if inner is wrapper:
            return wrapper
        wrapper = inner


@dataclass(frozen=True, slots=True)
class Project:
    """Which modules belong to the code that a function is part of."""

    package: str
    folder: Path | None

    @classmethod
    def of(cls, function: Any) -> Project:
        name = _module_name(getattr(function, "__module__", None) or "")
        filename = _filename(function)
        parts = name.split(".")
        if parts[0] == _OWN_PACKAGE:  # its example flows: what they import of the product is not theirs
            return cls(name.rpartition(".")[0] if len(parts) > 2 else name, None)
        if filename is None:
            return cls(parts[0], None)
        above = len(parts) - (0 if Path(filename).name == "__init__.py" else 1)
        folder = Path(filename).resolve().parent
        for _ in range(above):
            folder = folder.parent
        return cls(parts[0], folder)

    def has(self, module: str, filename: str | None) -> bool:
        name = _module_name(module)
        if name == self.package or name.startswith(f"{self.package}."):
            return True
        if filename is None or self.folder is None or name.partition(".")[0] == _OWN_PACKAGE:
            return False
        return _lies_in(filename, self.folder)

    def has_object(self, found: Any) -> bool:
        return self.has(getattr(found, "__module__", None) or "", _filename(found))

    def has_module(self, module: ModuleType) -> bool:
        return self.has(module.__name__, getattr(module, "__file__", None))


@functools.lru_cache(maxsize=4096)
def _lies_in(filename: str, folder: Path) -> bool:
    path = Path(filename).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts) or not path.is_relative_to(folder):
        return False
    return not any(path.is_relative_to(library) for library in _standard_library())


@functools.cache
def _standard_library() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})


def _module_name(name: str) -> str:
    return main_module_name() or name if name == "__main__" else name


def _filename(found: Any) -> str | None:
    if isinstance(found, FunctionType):
        # The code of a script has its name as it was typed, which a change of folder invalidates.
        recorded, file = found.__code__.co_filename, found.__globals__.get("__file__")
        return file if file and Path(file).name == Path(recorded).name else recorded
    module = sys.modules.get(getattr(found, "__module__", None) or "")
    return getattr(module, "__file__", None)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where names are looked up: imports inside the code, then closure, then module."""

    globals: dict[str, Any]
    cells: Mapping[str, Any] = field(default_factory=dict)
    imports: Mapping[str, Import] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a name stands for, and in which module under which name it is bound, if in one."""

    value: Any
    module_globals: dict[str, Any] | None
    name: str


_NOTHING = object()


class _Digest:
    """One walk over a function and what it names.

    Definitions are numbered in the order in which the walk comes to them, so that no module or file name enters the
    digest.
    """

    def __init__(self, project: Project, follow_steps: bool) -> None:
        self._project = project
        self._follow_steps = follow_steps
        self._numbers: dict[object, int] = {}
        self._records: list[Any] = []

    def of(self, function: Any) -> str:
        if self._number_of(_Found(function, None, "")) is None:
            self._function(function)
        text = json.dumps([_FORMAT, self._records])
        return blake2b(text.encode(), digest_size=32).hexdigest()

    def _number_of(self, found: _Found) -> int | None:
        """The number of a definition, walked through if it is new; None where it does not count."""
        value = found.value
        if not self._follow_steps and _is_step(value) and self._records:
            return None
        value = plain_function(value)
        if isinstance(value, FunctionType):
            return self._function(value) if not self._records or self._project.has_object(value) else None
        if isinstance(value, type):
            if not self._project.has_object(value):
                return None
            number = self._class(value)
            return self._constant(found) if number is None else number
        return None if isinstance(value, ModuleType) else self._constant(found)

    def _function(self, function: Any) -> int:
        code = getattr(function, "__code__", None)
        if code is None:
            name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
            return self._record(("builtin", name), "builtin", name)
        key = (code, tuple(map(id, function.__closure__ or ())))
        if key in self._numbers:
            return self._numbers[key]
        place = _Place(function.__globals__, dict(_cells(function)))
        tree = module_tree(_filename(function) or "", function.__globals__)
        node = None if tree is None else function_node(tree, code)
        if node is None:
            return self._record(key, "bytecode", _code_text(code), place, sorted(_code_names(code)))
        return self._source(key, "function", [node], place)

    def _class(self, cls: type) -> int | None:
        module = sys.modules.get(cls.__module__)
        key = (cls.__module__, cls.__qualname__)
        if key in self._numbers or module is None:
            return self._numbers.get(key)
        tree = _tree_of(vars(module))
        node = None if tree is None else class_node(tree, cls.__qualname__)
        return None if node is None else self._source(key, "class", [node], _Place(vars(module)))

    def _constant(self, found: _Found) -> int | None:
        owner = found.module_globals
        if owner is None:
            return self._literal(found.value)
        if not self._project.has(owner.get("__name__", ""), owner.get("__file__")):
            return None
        key = (owner.get("__name__"), found.name, "constant")
        if key in self._numbers:
            return self._numbers[key]
        tree = _tree_of(owner)
        if tree is None:
            return self._literal(found.value)
        statements = bindings(tree, found.name)
        for statement in statements:
            if isinstance(statement, ast.ImportFrom):
                return self._imported(statement, owner, found.name)
        return self._source(key, "constant", statements, _Place(owner)) if statements else None

    def _imported(self, statement: ast.ImportFrom, owner: dict[str, Any], name: str) -> int | None:
        alias = next(alias for alias in statement.names if (alias.asname or alias.name) == name)
        there = self._import(Import(statement.module or "", alias.name, statement.level), owner)
        if there is None or there.module_globals is owner:
            return None
        return self._number_of(there)

    def _literal(self, value: object) -> int | None:
        items = value if type(value) is tuple else (value,)
        literal = all(type(item) in _SCALARS for item in items)
        text = f"{type(value).__name__}:{value!r}"
        return self._record(("literal", text), "literal", text) if literal else None

    def _source(self, key: object, kind: str, nodes: list[Any], place: _Place) -> int:
        drops = functools.partial(_is_own_decorator, place=place)
        names = OutsideNames(drops)
        for node in nodes:
            names.visit(node)
        inside = _Place(place.globals, place.cells, names.imports)
        text = "\n".join(normal_text(node, drops) for node in nodes)
        return self._record(key, kind, text, inside, sorted(names.names()))

    def _record(
        self, key: object, kind: str, text: str, place: _Place | None = None, names: list[str] | None = None
    ) -> int:
        if key in self._numbers:
            return self._numbers[key]
        number = self._numbers[key] = len(self._records)
        references: list[tuple[str, int]] = []
        self._records.append([kind, text, references])
        for name in names or ():
            found = self._find(name, place) if place is not None else None
            target = None if found is None else self._number_of(found)
            if target is not None and target != number:
                references.append((name, target))
        return number

    def _find(self, dotted: str, place: _Place) -> _Found | None:
        first, *rest = dotted.split(".")
        if first in place.imports:
            found = self._import(place.imports[first], place.globals)
        elif first in place.cells:
            found = _Found(place.cells[first], None, first)
        elif first in place.globals:
            found = _Found(place.globals[first], place.globals, first)
        else:
            found = None
        while found is not None and rest and isinstance(found.value, ModuleType):
            if not self._project.has_module(found.value):
                return None
            found = _member(found.value, rest.pop(0))
        return found

    def _import(self, wanted: Import, importer: dict[str, Any]) -> _Found | None:
        try:
            name = importlib.util.resolve_name("." * wanted.level + wanted.module, importer.get("__package__"))
            module = sys.modules.get(name) or self._load(name)
        except (ImportError, ValueError):
            return None
        if module is None:
            return None
        return _Found(module, None, name) if wanted.name is None else _member(module, wanted.name)

    def _load(self, name: str) -> ModuleType | None:
        """Import a module of the project, which the function would import itself; leave others alone."""
        top = name.partition(".")[0]
        spec = importlib.util.find_spec(top)
        return importlib.import_module(name) if spec and self._project.has(top, spec.origin) else None


def _member(module: ModuleType, name: str) -> _Found | None:
    value = getattr(module, name, _NOTHING)
    if value is _NOTHING:
        value = sys.modules.get(f"{module.__name__}.{name}", _NOTHING)
    return None if value is _NOTHING else _Found(value, vars(module), name)


def _tree_of(module_globals: dict[str, Any]) -> ast.Module | None:
    filename = module_globals.get("__file__")
    return None if filename is None else module_tree(filename, module_globals)


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _is_step(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == _OWN_PACKAGE and hasattr(value, "function")


def _is_own_decorator(decorator: ast.expr, place: _Place) -> bool:
    while isinstance(decorator, ast.Call):
        decorator = decorator.func
    dotted = dotted_name(decorator)
    if dotted is None:
        return False
    first, *rest = dotted.split(".")
    value = place.cells.get(first, place.globals.get(first, _NOTHING))
    if value is _NOTHING:
        return dotted in _OWN_DECORATORS
    while rest and isinstance(value, ModuleType) and value.__name__.partition(".")[0] != _OWN_PACKAGE:
        value = getattr(value, rest.pop(0), None)
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return (name or "").partition(".")[0] == _OWN_PACKAGE


def _code_text(code: CodeType) -> str:
    constants = [_code_text(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return json.dumps([code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars])


def _code_names(code: CodeType) -> set[str]:
    inner = (_code_names(item) for item in code.co_consts if isinstance(item, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*inner)
