"""Make a notebook of every tutorial script, execute it, and keep what does not change from run to run."""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

os.environ.pop("MPLBACKEND", None)  # a notebook is to show its pictures
HERE = Path(__file__).parent
PYTHON = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def make(script: Path) -> None:
    notebook = jupytext.read(script)
    notebook.metadata = {"kernelspec": PYTHON}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    notebook.metadata = {"kernelspec": PYTHON, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            # TensorFlow writes start-up lines with the time of day to stderr.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, script.with_suffix(".ipynb"))
    print(script.with_suffix(".ipynb").name)


for wanted in sys.argv[1:] or ["[0-9]*"]:
    for path in sorted(HERE.glob(f"{wanted}_*.py")):
        make(path)
