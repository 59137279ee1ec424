"""The package as it is installed: its version, and the files of the wheel."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

import tapekit

ROOT = pathlib.Path(__file__).parent.parent
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_version_is_that_of_the_installed_package_and_of_the_project():
    assert tapekit.__version__ == importlib.metadata.version("tapekit")
    assert tapekit.__version__ == VERSION, "the environment holds an older installation: run make test"


def test_a_folder_that_is_not_installed_imports_without_a_version(tmp_path):
    (tmp_path / "tapekit").symlink_to(ROOT / "tapekit")
    code = (
        "import importlib.metadata as m, sys\n"
        "def absent(name): raise m.PackageNotFoundError(name)\n"
        "m.version = absent\n"
        "import tapekit\n"
        "print(tapekit.__file__, hasattr(tapekit, '__version__'))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.split() == [str(tmp_path / "tapekit" / "__init__.py"), "False"], run.stderr


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tapekit").rglob("*.py")}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files | {"tapekit/py.typed"}


def test_the_wheel_names_its_version_its_license_and_what_it_needs(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(metadata).decode()
    assert f"\nVersion: {VERSION}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    needed = re.findall(r"^Requires-Dist: ([a-z]+)[^;\n]*$", text, re.MULTILINE)
    assert sorted(needed) == ["matplotlib", "numpy", "tensorflow"]
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
