"""Syntax trees for comparing code: a text that only meaning changes, and the names that code takes from outside.

`ast.dump` will not do: what it prints differs between Python versions.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# Where a value is stored or loaded follows from its place; the others are leftovers of type comments and u"".
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


@dataclass(frozen=True, slots=True)
class Import:
    """An import inside a function: ``from module import name``, or ``import module`` where name is None."""

    module: str
    name: str | None
    level: int


def module_tree(filename: str, module_globals: dict[str, Any] | None) -> ast.Module | None:
    """The syntax tree of a source file as it is now, None where there is no source."""
    linecache.checkcache(filename)
    source = "".join(linecache.getlines(filename, module_globals))
    return _parsed(source) if source else None


@lru_cache(maxsize=128)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def function_node(tree: ast.Module, code: CodeType) -> Function | None:
    """The definition that a code object was compiled from."""
    nodes = _functions(tree).get((code.co_name, code.co_firstlineno), [])
    if len(nodes) < 2:
        return nodes[0] if nodes else None
    # Several lambdas on a line: the last instruction returns the body, and has its position.
    *_, (line, _, column, _) = code.co_positions()
    for node in nodes:
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) == (line, column):
            return node
    return None


@lru_cache(maxsize=128)
def _functions(tree: ast.Module) -> dict[tuple[str, int], list[Function]]:
    found: dict[tuple[str, int], list[Function]] = {}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            found.setdefault((_name(node), _first_line(node)), []).append(node)
    return found


def class_node(tree: ast.Module, qualname: str) -> ast.ClassDef | None:
    """The definition of a class by its qualified name; the last one, where several have it."""
    inside: Iterable[ast.stmt] = tree.body
    found: Definition | None = None
    for part in qualname.split("."):
        if part == "<locals>":
            continue
        named = [node for node in _statements(inside) if isinstance(node, Definition) and node.name == part]
        if not named:
            return None
        found = named[-1]
        inside = found.body
    return found if isinstance(found, ast.ClassDef) else None


def bindings(tree: ast.Module, name: str) -> list[ast.stmt]:
    """The statements of a module that give a name its value, wherever they stand outside functions."""
    return [statement for statement in _statements(tree.body) if name in _bound_by(statement)]


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if not isinstance(statement, Definition):
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, field, ()))
            for handler in getattr(statement, "handlers", ()):
                yield from _statements(handler.body)


def _bound_by(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        case ast.Assign():
            targets: list[ast.expr] = statement.targets
        case ast.AnnAssign() if statement.value is not None:
            targets = [statement.target]
        case ast.AugAssign():
            targets = [statement.target]
        case _:
            return set()
    names = (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def _name(node: Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _first_line(node: Function) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def normal_text(node: ast.AST, drops_decorator: Callable[[ast.expr], bool]) -> str:
    """A text of the tree without positions, docstrings, ``pass`` and the decorators that do not count."""
    return _normal(node, drops_decorator)


def _normal(node: object, drops: Callable[[ast.expr], bool]) -> str:
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.JoinedStr):
        return f"(JoinedStr {_list(_merged(node.values), drops)})"
    if isinstance(node, ast.AST):
        fields = ((name, _counting(name, value, drops)) for name, value in ast.iter_fields(node))
        # Newer versions of Python have fields that are empty in older code.
        texts = [f" {name}={_normal(value, drops)}" for name, value in fields if value is not None and value != []]
        return f"({type(node).__name__}{''.join(texts)})"
    if isinstance(node, list):
        return _list(node, drops)
    return repr(node)


def _counting(field: str, value: object, drops: Callable[[ast.expr], bool]) -> object:
    """What of a field counts, None for nothing."""
    if field in _IGNORED_FIELDS:
        return None
    if field == "decorator_list" and isinstance(value, list):
        return [decorator for decorator in value if not drops(decorator)]
    if field in ("body", "orelse", "finalbody") and isinstance(value, list):
        return [statement for statement in value if not _does_nothing(statement)]
    return value


def _list(items: Iterable[object], drops: Callable[[ast.expr], bool]) -> str:
    return f"[{' '.join(_normal(item, drops) for item in items)}]"


def _does_nothing(statement: object) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


def _constant(value: object) -> str:
    # Decimal text of an int is limited to 4300 digits.
    return hex(value) if type(value) is int else f"{type(value).__name__}:{value!r}"


def _merged(values: Iterable[ast.expr]) -> list[ast.expr]:
    """The pieces of an f-string with neighbouring texts joined, which parsers have done differently."""
    merged: list[ast.expr] = []
    for value in values:
        text, last = _text(value), _text(merged[-1]) if merged else None
        if text is None:
            merged.append(value)
        elif last is not None:
            merged[-1] = ast.Constant(last + text)
        elif text:
            merged.append(value)
    return merged


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


class OutsideNames(ast.NodeVisitor):
    """Collects the dotted names that a piece of code takes from outside itself.

    Attributes:
        imports: What imports inside the code bind; such names count as taken from outside.
    """

    def __init__(self, drops_decorator: Callable[[ast.expr], bool]) -> None:
        self.imports: dict[str, Import] = {}
        self._drops = drops_decorator
        self._used: set[str] = set()
        self._bound: set[str] = set()
        self._global: set[str] = set()

    def names(self) -> set[str]:
        """Names such as ``scale`` and ``geometry.area``."""
        hidden = self._bound - self._global - self.imports.keys()
        return {name for name in self._used if name.partition(".")[0] not in hidden}

    def visit_Name(self, node: ast.Name) -> None:
        (self._used if isinstance(node.ctx, ast.Load) else self._bound).add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = dotted_name(node)
        if name is None:
            self.generic_visit(node)
        else:
            self._used.add(name)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bound.add(node.name)
        self._visit_decorators(node)
        self._visit_signature(node.args)
        if node.returns is not None:
            self.visit(node.returns)
        self._visit_inside(node.args, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the visitor's own naming

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_signature(node.args)
        self._visit_inside(node.args, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bound.add(node.name)
        self._visit_decorators(node)
        for outer in (*node.bases, *node.keywords):
            self.visit(outer)
        inner = OutsideNames(self._drops)
        for statement in node.body:
            inner.visit(statement)
        # Methods do not see the names of the class body, so those hide nothing.
        self._used |= inner._used
        self.imports |= inner.imports

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        inner = OutsideNames(self._drops)
        inner.generic_visit(node)
        self._used |= inner.names()

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815 - as above

    def visit_Global(self, node: ast.Global) -> None:
        self._global.update(node.names)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._bind(node.rest)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname:
                self.imports[alias.asname] = Import(alias.name, None, 0)
            else:
                top = alias.name.partition(".")[0]
                self.imports[top] = Import(top, None, 0)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.imports[alias.asname or alias.name] = Import(node.module or "", alias.name, node.level)

    def _visit_decorators(self, node: Definition) -> None:
        for decorator in node.decorator_list:
            if not self._drops(decorator):
                self.visit(decorator)

    def _visit_signature(self, arguments: ast.arguments) -> None:
        for argument in _arguments(arguments):
            if argument.annotation is not None:
                self.visit(argument.annotation)
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)

    def _visit_inside(self, arguments: ast.arguments, body: Iterable[ast.AST]) -> None:
        inner = OutsideNames(self._drops)
        inner._bound.update(argument.arg for argument in _arguments(arguments))
        for node in body:
            inner.visit(node)
        self._used |= inner.names()
        self.imports |= inner.imports

    def _bind(self, name: str | None) -> None:
        if name is not None:
            self._bound.add(name)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return several + [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]


def dotted_name(node: ast.expr) -> str | None:
    """``a.b.c`` for an attribute of an attribute of a name, None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted_name(node.value)
        return None if owner is None else f"{owner}.{node.attr}"
    return None
