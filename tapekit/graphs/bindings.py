"""Where a name was last bound before `fn`: `last_binding` reads the syntax of the user's program."""

import ast
import functools
import linecache
import re
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from tapekit._lines import is_own
from tapekit.graphs.places import Place, place_at, short

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_GROWS = {"append", "extend", "insert", "add", "update", "setdefault"}


class Binding(NamedTuple):
    """The line that last bound a name, and whether a line before bound it to a new variable."""

    at: Place
    variable: bool


def last_binding(name: str, code: CodeType, holder: Any = None) -> Binding | None:
    """Return where `name`, as the function with this `code` uses it, was last bound; None if that is not known.

    `name` is a variable or a path from one, as ``params[0]`` or ``self.scaled``. An attribute of an object `holder` is
    bound where an attribute of that name is set: around the function, or in the class of the object.
    """
    for default in _defaults(name, code):
        if not isinstance(default, ast.Name):
            return Binding(place_at(code.co_filename, default.lineno), variable=False)
        name = default.id
    root, attribute = re.split(r"\W", name)[0], re.escape(name.rpartition(".")[2])
    around, dotted = [*_scopes(code)], rf".*\.{attribute}"
    own = rf"{root}([.\[].*)?" if root != name else root
    searches = [(dotted, each) for each in around] if holder is not None else []
    searches += [(attribute if isinstance(each[1], ast.ClassDef) else dotted, each) for each in _classes(holder)]
    searches += [(own, each) for each in around]  # also of an attribute that its class binds: where the object was made
    for pattern, (file, scope) in searches:
        lines = sorted(node.lineno for node in _nodes(scope) if re.fullmatch(pattern, _bound(node), re.DOTALL))
        before = [line for line in lines if file == code.co_filename and line < code.co_firstlineno]
        if lines := before or lines:
            earlier = [node for node in _nodes(scope) if isinstance(node, ast.Assign) and node.lineno in lines[:-1]]
            return Binding(place_at(file, lines[-1]), any(_makes_variable(node, root) for node in earlier))
    return None


def _makes_variable(node: ast.Assign, name: str) -> bool:
    """Return whether an assignment binds `name` to a new variable."""
    target, value = node.targets[0], node.value
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = [*zip(target.elts, value.elts, strict=False)]
    return any(name in ast.unparse(target) and "Variable(" in ast.unparse(value) for target, value in pairs)


def _defaults(name: str, code: CodeType) -> Iterator[ast.expr]:
    """Yield the default value of the parameter `name` of the function with this `code`, if it has one."""
    for node in ast.walk(_tree(code.co_filename)):
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)) and node.lineno == code.co_firstlineno:
            args = [*node.args.posonlyargs, *node.args.args]
            pairs: list[Any] = [*zip(args[::-1], node.args.defaults[::-1], strict=False)]
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from (default for arg, default in pairs if arg.arg == name and default)


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
    """Yield the bodies and methods of the class of an object and of its base classes, if they are the user's."""
    for kind in type(holder).__mro__:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
        nodes = ast.walk(_tree(file)) if is_own(file) else ()
        for node in nodes:
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                yield from ((file, inner) for inner in (*reversed(node.body), node) if hasattr(inner, "body"))


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
    pending = [*scope.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.AnnAssign) and node.value is None:
            continue  # it declares a field
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)


def _bound(node: Any) -> str:
    """Return the source code of what `node` binds: a name, an attribute, an element, a list that grows."""
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _GROWS:
        return ast.unparse(node.func)
    return ast.unparse(node) if isinstance(getattr(node, "ctx", None), ast.Store) else ""
