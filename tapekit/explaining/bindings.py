"""Where a name was last bound before `fn`: the one question for which the source code of the user is read."""

import ast
import functools
import linecache
import re
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from tapekit._lines import is_own
from tapekit.graphs.capture import Place, place_at, short

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_GROWS = {"append", "extend", "insert", "add", "update", "setdefault"}


class Binding(NamedTuple):
    """The line that last bound a name, and whether another line bound it before."""

    at: Place
    again: bool


def last_binding(name: str, code: CodeType, holder: Any = None) -> Binding | None:
    """Return where `name`, as the function with this `code` uses it, was last bound; None if that is not known.

    `name` is a variable or a path from one, as ``params[0]`` or ``self.scaled``. An attribute of an object `holder` is
    bound where an attribute of that name is set: around the function, or in the class of the object.
    """
    root, attribute = re.split(r"\W", name)[0], name.rpartition(".")[2]
    pattern = rf"{root}([.\[].*)?" if root != name else root
    if holder is not None:
        pattern = rf".*\.{re.escape(attribute)}"
    for file, scope in [*_scopes(code), *_classes(holder)]:
        lines = sorted(node.lineno for node in _nodes(scope) if re.fullmatch(pattern, _bound(node), re.DOTALL))
        before = [line for line in lines if file == code.co_filename and line < code.co_firstlineno]
        if lines:
            lines = before or lines
            return Binding(place_at(file, lines[-1]), len(lines) > 1)
    return None


def _scopes(code: CodeType) -> Iterator[tuple[str, Any]]:
    """Yield the functions around the one with this `code`, innermost first, its module, and earlier notebook cells."""
    file, first = code.co_filename, code.co_firstlineno
    functions = [node for node in ast.walk(_tree(file)) if isinstance(node, _FUNCTIONS)]
    around = [node for node in functions if node.lineno < first <= (node.end_lineno or 0)]
    yield from ((file, node) for node in sorted(around, key=lambda node: -node.lineno))
    yield file, _tree(file)
    if short(file) == "notebook cell":
        yield from ((cell, _tree(cell)) for cell in reversed(linecache.cache) if short(cell) == "notebook cell")


def _classes(holder: Any) -> Iterator[tuple[str, Any]]:
    """Yield the methods of the class of an object and of its base classes, if they are the user's."""
    for kind in type(holder).__mro__ if holder is not None else ():
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
        for node in ast.walk(_tree(file)) if file and is_own(file) else ():
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                yield from ((file, inner) for inner in reversed(node.body) if isinstance(inner, _FUNCTIONS))


@functools.lru_cache(maxsize=8)
def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:  # a notebook cell with magic commands
        return ast.Module([], [])


def _tree(file: str) -> ast.Module:
    return _parsed("".join(linecache.getlines(file)))


def _nodes(scope: Any) -> Iterator[Any]:
    """Yield the nodes of a scope, and not those of functions and classes inside it that have names of their own."""
    pending = [scope.args, *scope.body] if isinstance(scope, _FUNCTIONS) else [*scope.body]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)


def _bound(node: Any) -> str:
    """Return the source code of what `node` binds: a name, an attribute, an element, a list that grows."""
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _GROWS:
        return ast.unparse(node.func)
    return ast.unparse(node) if isinstance(getattr(node, "ctx", None), ast.Store) else ""
