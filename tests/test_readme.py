"""What README shows fits its page, and what it names exists. Its examples run as doctests."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_code_is_not_wider_than_the_page():
    wide = [line for kind, block in BLOCKS if kind != "text" for line in block.splitlines() if len(line) > 88]
    assert wide == []


def test_every_python_block_is_a_doctest():
    for kind, block in BLOCKS:
        assert kind in {"python", "console", "text"}
        assert kind != "python" or block.startswith(">>> ")


def test_every_command_is_a_target_of_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]
    assert commands
    for line in commands:
        assert re.fullmatch(r"\$ make ([a-z-]+)( +#.*)?", line)[1] in targets, line


def test_links_and_pictures_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_layout_names_every_file_of_the_core_and_every_room():
    (layout,) = [block for kind, block in BLOCKS if kind == "text"]
    for path in (ROOT / "tapekit").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            assert f"\n  {path.name}{'/' if path.is_dir() else ''} " in layout, path.name
