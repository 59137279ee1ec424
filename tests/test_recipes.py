"""The page of recipes: its libraries are not installed here, so the code is read, not run."""

import ast
import pathlib
import re

import pytest

import tapekit

PAGE = pathlib.Path(__file__).parent.parent / "tutorials" / "recipes.md"
RECIPES = re.findall(r"^## (.+?)$(.+?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("title", "text"), RECIPES, ids=[title for title, _ in RECIPES])
def test_a_recipe_names_a_version_and_shows_code_of_88_columns_and_its_output(title, text):
    assert re.search(r"\d+\.\d+\.\d+", title)
    blocks = re.findall(r"^```python\n(.+?)^```\n\n```text\n.+?^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```python") >= 1
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 88


@pytest.mark.parametrize(("title", "text"), RECIPES, ids=[title for title, _ in RECIPES])
def test_a_recipe_is_valid_python_and_uses_public_names_of_tapekit(title, text):
    code = "".join(re.findall(r"^```python\n(.+?)^```", text, re.MULTILINE | re.DOTALL))
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)]
    for node in nodes:
        if isinstance(node.value, ast.Name) and node.value.id == "tapekit":
            assert node.attr in tapekit.__all__
        if isinstance(node.value, ast.Name) and node.value.id == "log":
            assert hasattr(tapekit.GradientLog(), node.attr)
