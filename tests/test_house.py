"""The package is laid out as the README draws it: the core stands alone, and each room imports downwards."""

import ast
import pathlib
import subprocess
import sys

import pytest

import tapekit

PACKAGE = pathlib.Path(tapekit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAY_IMPORT = {
    "core": set(),
    "graphs": {"core"},
    "tracing": {"core", "graphs"},
    "explaining": {"core", "graphs", "tracing"},
    "checking": {"core", "graphs"},
    "logs": {"core"},
    "plots": set(),
}
ROOMS = sorted(set(MAY_IMPORT) - {"core"})
# what each has at most; `explaining` is half words
LINES = dict.fromkeys(MAY_IMPORT, 1000) | {"explaining": 1200, "plots": 1100}
ONLY_IN = {"keras": {"logs"}, "matplotlib": {"plots"}, "tensorflow": set(MAY_IMPORT) - {"plots"}}


def name_of(file):
    """`.../tapekit/checking/check.py` -> `tapekit.checking.check`"""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(["tapekit", *(part for part in parts if part != "__init__")])


def room_of(module):
    """`tapekit.checking.check` -> `checking`, `tapekit.tape` -> `core`"""
    part = module.split(".")[1]
    return part if part in ROOMS else "core"


def imports(file):
    """``(module, whether inside a function)`` of each import that runs."""
    tree = ast.parse(file.read_text())
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    types_only = {id(node) for block in blocks for node in ast.walk(block)}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lazy = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in types_only:
            yield from ((alias.name, id(node) in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in types_only:
            inner = node.module == "tapekit"
            found = [f"tapekit.{alias.name}" for alias in node.names] if inner else [node.module]
            yield from ((module, id(node) in lazy) for module in found)


# tapekit/__init__.py gathers the public names of every room, and is no part of the core
@pytest.mark.parametrize("file", [file for file in FILES if name_of(file) != "tapekit"], ids=name_of)
def test_a_file_imports_only_what_its_room_may(file):
    here = room_of(name_of(file))
    for module, lazy in imports(file):
        top = module.split(".")[0]
        assert here in ONLY_IN.get(top, {here}), f"{here} imports {module}"
        assert lazy or top != "matplotlib", f"{module} is imported before a plot is drawn"
        if top == "tapekit" and room_of(module) not in MAY_IMPORT[here] | {here}:
            public = lazy and module == f"tapekit.{room_of(module)}"
            if module == "tapekit.plots" and public:  # for the picture that a notebook shows
                continue
            names = module == "tapekit._names"  # pure text
            assert here == "plots", f"{here} imports {module}"
            assert public or names, f"a plot imports {module}, not a room's public name inside a function"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_is_thin(room):
    files = [file for file in FILES if name_of(file) != "tapekit" and room_of(name_of(file)) == room]
    lines = {file.name: len(file.read_text().splitlines()) for file in files}
    assert max(lines.values()) <= 300, lines
    assert sum(lines.values()) <= LINES[room], lines


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_begins_with_its_question_and_its_files(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert len(text.splitlines()) <= 25
    for file in (PACKAGE / room).glob("*.py"):
        assert file.stem == "__init__" or f"\n    {file.stem} " in text, f"{room} does not list {file.stem}"


def test_the_core_imports_without_its_rooms():
    code = f"""
import sys, types
package = types.ModuleType("tapekit")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["tapekit"] = package
import tapekit.jacobians
print(*[name for name in sys.modules if name.startswith("tapekit.")])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tapekit.gradients" in run.stdout
    assert not [name for name in run.stdout.split() if room_of(name) != "core"]
