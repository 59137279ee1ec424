"""The text of the user's program: the last witness, asked only where one line alone fits what was measured."""

import ast
import inspect
import linecache
from collections.abc import Callable, Iterable

from tapekit.graphs.capture import Place


def assigned(fn: Callable, name: str, wanted: set[str], depth: int = 5) -> Place | None:
    """The line before `fn` that computes `name` from one of the `wanted` names, directly or by way of others."""
    if depth:
        for node in _around(fn):
            if isinstance(node, (ast.Assign, ast.AugAssign)) and node.lineno < _code(fn).co_firstlineno:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                    used = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
                    if used & wanted or any(assigned(fn, each, wanted, depth - 1) for each in used - {name}):
                        return _place(fn, node.lineno)
    return None


def attribute(fn: Callable, name: str) -> Place | None:
    """The one line near `fn` that sets ``self.<name>``."""
    targets = [each for node in _around(fn) if isinstance(node, ast.Assign) for each in node.targets]
    return _only(fn, (each.lineno for each in targets if isinstance(each, ast.Attribute) and each.attr == name))


def made_as_integer(fn: Callable) -> Place | None:
    """The one line near `fn` that makes variables without a float in sight."""
    lines = (
        node.lineno
        for node in _around(fn)
        if isinstance(node, ast.Call) and node.args and _last(node.func) == "Variable"
        if not any(isinstance(getattr(each, "value", None), float) for each in ast.walk(node))
    )
    return _only(fn, lines)


def configured(fn: Callable, word: str) -> Place | None:
    """The one line near `fn` that asks for ``activation='relu'`` or the like."""
    words = [node for node in _around(fn) if isinstance(node, ast.Constant) and node.value == word]
    return _only(fn, (node.lineno for node in words))


def python_body(fn: Callable, code: str) -> Place | None:
    """The first line that uses NumPy in the function that `code` hands to tf.py_function."""
    name = code.partition("py_function(")[2].split(",")[0].strip()
    for node in _around(fn):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            lines = linecache.getlines(_code(fn).co_filename)
            inside = range(node.body[0].lineno, (node.end_lineno or 0) + 1)
            return next((_place(fn, n) for n in inside if "np." in lines[n - 1] or "numpy" in lines[n - 1]), None)
    return None


def _around(fn: Callable) -> Iterable[ast.AST]:
    """The syntax of the function that `fn` is written in, or of its file or notebook cell."""
    code = _code(fn)
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename))) if code else ast.Module([], [])
    except SyntaxError:  # a notebook's cell with magic commands
        return []
    first = code.co_firstlineno if code else 0
    outer = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= first <= (node.end_lineno or 0)
    ]
    own = [node for node in outer if node.lineno == first or any(d.lineno == first for d in node.decorator_list)]
    scopes = [node for node in outer if node not in own]
    return ast.walk(max(scopes, key=lambda node: node.lineno) if scopes else tree)


def _code(fn: Callable):
    return getattr(inspect.unwrap(fn), "__code__", None)


def _place(fn: Callable, line: int) -> Place:
    file = _code(fn).co_filename
    return Place(file, line, linecache.getline(file, line).strip())


def _only(fn: Callable, lines: Iterable[int]) -> Place | None:
    found = set(lines)
    return _place(fn, found.pop()) if len(found) == 1 else None


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
