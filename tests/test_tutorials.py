"""Every tutorial runs with plain Python, and every notebook holds its script's cells and was executed."""

import os
import pathlib
import re
import subprocess
import sys

import jupytext
import nbformat
import pytest

TUTORIALS = pathlib.Path(__file__).parent.parent / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("[0-9]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_runs_in_an_empty_folder(script, tmp_path):
    for data in TUTORIALS.glob("data/*.npz"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / data.name).symlink_to(data)
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "error::UserWarning"}
    run = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for picture in re.findall(r"\S+\.(?:png|gif)", run.stdout):
        assert (tmp_path / picture).stat().st_size > 1000


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_holds_the_cells_of_its_script_and_their_results(script):
    cells = [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_links_between_tutorials_lead_somewhere(script):
    for link in re.findall(r"\]\(([^)#]+)\)", script.read_text()):
        if not link.startswith("http"):
            assert (TUTORIALS / link).exists(), link
