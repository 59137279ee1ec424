"""Every tutorial runs, its exercises tell right answers from wrong ones, and its notebook holds the script's cells."""

import functools
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jupytext
import nbformat
import pytest

TUTORIALS = pathlib.Path(__file__).parent.parent / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("[0-9]*.py"))
every_tutorial = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)

# for each check: a wrong answer, and words of its hint
WRONG = {
    "check_step_size": {
        "mine = 1.0": "across the bottom",
        "mine = 5.0": "how far w must move",
        "mine = 0.1": "leads from 5 to 4",
    },
    "check_walk": {
        "mine = 0.6": "That is one step",
        "mine = 1.0": "That is the loss",
        "mine = 3.0": "the bottom itself",
        "mine = -712.0": "uphill",
        "mine = 2.5": "Repeat 30 times",
    },
    "check_gates": {
        'mine = {"a": 5.0, "b": 15.0, "c": 3.0}': "added, not multiplied",
        'mine = {"a": 5.0, "b": 3.0, "c": 3.0}': "used twice",
        'mine = {"a": 3.0, "b": 8.0, "c": 5.0}': "the other one",
        'mine = {"a": 1.0, "b": 2.0, "c": 1.0}': "Begin at the end",
    },
    "check_repair": {
        "mine = broken": "leave TensorFlow",
        "mine = lambda gain, shift, limit: gain * limit + 0 * tf.stop_gradient(shift)": "shift has no gradient",
        "mine = lambda gain, shift, limit: gain * shift * tf.cast(0.0 > limit, tf.float32) + shift": "limit has no",
        "mine = lambda gain, shift, limit: gain * shift * limit": "stay the same loss",
        "mine = lambda gain, shift, limit: gain + shift + limit": "too wide",
        "mine = lambda gain: gain": "raises TypeError",
    },
    "check_log_sum_exp": {
        "mine = tf.reduce_sum": "your function returns",
        "mine = log_sum_exp": "add up to 1",
        "mine = lambda x: tf.stop_gradient(tf.reduce_logsumexp(x))": "no gradient at all",
        "mine = tf.custom_gradient(lambda x: (tf.reduce_logsumexp(x), lambda upstream: tf.nn.softmax(x)))": "is lost",
    },
    "check_rate": {"mine = 0.001": "the ratio that you want", "mine = 0.1": "too large", "mine = 0.002": "too small"},
    "check_residual": {
        "mine = 2 ** (1 / 30)": "solve for a",
        "mine = (2 ** (1 / 30) - 1) ** 0.5": "not 1 + a²",
        "mine = 0.1": "Measured with your a",
    },
    "check_record": {
        "mine = 243": "is the step",
        "mine = 1": "place in the batch",
        "mine = 12819": "first series",
        "mine = 5": "Train on x2",
    },
    "check_change": {
        "mine = tapekit.vjp(f, x, [0.02, -0.01, 0.0]).cotangents": "one for each input",
        "mine = tapekit.jacobian(f, x)": "whole Jacobian",
        "mine = f(x + [0.02, -0.01]) - f(x)": "the change itself",
        "mine = [0.02, 0.1, -0.01]": "by hand",
    },
    "check_largest_step": {
        "mine = 1 / 1001.6": "at the bottom at once",
        "mine = 2 / 0.4": "flat direction",
        "mine = 0.003": "Forty steps",
    },
    "check_friction": {
        "mine = lambda u, x: first(first(u))(x) + u(x)": "friction is missing",
        "mine = lambda u, x: first(first(u))(x) - 1.2 * first(u)(x) + u(x)": "mind the signs",
        "mine = lambda u, x: tf.reduce_mean(u(x))": "that shape too",
    },
    "check_friend": {
        "mine = attacked": "where the loss grows",
        "mine = x - 0.5 * tf.sign(loss_gradient)": "At most 0.1",
        "mine = x - 0.1 * tf.sign(loss_gradient)": "Clip them",
        "mine = x": "Use the gradient",
        "mine = x[:1]": "shape",
    },
    "check_bare": {
        'mine = shares(heat["cross"], corners)': "still clearly hotter",
        "mine = convolutions(both)": "Two shares",
        "mine = (0.01, 0.02)": "last axis",
    },
}

# runs a script, then pieces of code in its namespace, and prints what each of them prints as JSON
RUN = """
import contextlib, io, json, os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
printed, prints = io.StringIO(), []
with contextlib.redirect_stdout(printed):
    namespace = runpy.run_path(sys.argv[1], run_name="__main__")
for code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(code, namespace)
    prints.append(said.getvalue().strip())
print(json.dumps([printed.getvalue(), prints]))
"""


def cells_of(script):
    return [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]


def exercises_of(script):
    """Return the call of the check, and the answer that is folded below it, of each exercise."""
    found = []
    cells = cells_of(script)
    for (_, code), (_, below) in itertools.pairwise(cells):
        if call := re.search(r"^exercises\.check_.*$", code, re.MULTILINE):
            found.append((call[0], re.search(r"<details>.*?```python\n(.*?)```\n</details>", below, re.DOTALL)[1]))
    return found


def name_of(call):
    return re.match(r"exercises\.(\w+)", call)[1]


@functools.cache
def run(script):
    """Run a script in an empty folder, then each answer. Return what they print, and the folder."""
    folder = pathlib.Path(tempfile.mkdtemp())
    code = []
    for call, answer in exercises_of(script):
        code += [f"{answer}\n{call}", *(f"{wrong}\n{call}" for wrong in WRONG[name_of(call)])]
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "error::UserWarning"}
    command = [sys.executable, "-c", RUN, str(script)]
    ran = subprocess.run(
        command, cwd=folder, env=environment, input=json.dumps(code), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    printed, said = json.loads(ran.stdout.splitlines()[-1])
    return printed, dict(zip(code, said, strict=True)), folder


@every_tutorial
def test_the_script_runs_in_an_empty_folder_and_saves_its_pictures(script):
    printed, _, folder = run(script)
    pictures = re.findall(r"picture: (\S+)", printed)
    assert pictures
    for picture in pictures:
        assert (folder / picture).stat().st_size > 1000
        assert (TUTORIALS / picture).exists(), f"{picture} is not in the repository"


@every_tutorial
def test_an_exercise_that_is_not_answered_says_so(script):
    assert run(script)[0].count("No answer yet.") == len(exercises_of(script)) > 0


@every_tutorial
def test_the_folded_answer_of_each_exercise_is_right(script):
    _, said, _ = run(script)
    for call, answer in exercises_of(script):
        assert said[f"{answer}\n{call}"] == "Right."


@every_tutorial
def test_a_wrong_answer_gets_its_hint(script):
    _, said, _ = run(script)
    for call, _ in exercises_of(script):
        for wrong, hint in WRONG[name_of(call)].items():
            assert said[f"{wrong}\n{call}"].startswith("Not yet."), wrong
            assert hint in said[f"{wrong}\n{call}"], wrong


def test_every_check_belongs_to_an_exercise():
    checks = re.findall(r"^def (check_\w+)", (TUTORIALS / "exercises.py").read_text(), re.MULTILINE)
    used = [name_of(call) for script in SCRIPTS for call, _ in exercises_of(script)]
    assert sorted(checks) == sorted(used) == sorted(WRONG)


@every_tutorial
def test_a_tutorial_has_fewer_than_150_lines(script):
    assert len(script.read_text().splitlines()) < 150


@every_tutorial
def test_a_prediction_stands_in_a_cell_of_its_own_before_the_code(script):
    cells = cells_of(script)
    questions = [i for i, (_, source) in enumerate(cells) if "**Predict" in source]
    assert len(questions) >= 1
    for i in questions:
        assert cells[i][1].startswith("**Predict.**")
        assert cells[i + 1][0] == "code"


@every_tutorial
def test_a_tutorial_ends_with_what_the_reader_can_do_now(script):
    assert cells_of(script)[-1][1].count("**You can now**") == 3


@every_tutorial
def test_the_notebook_holds_the_cells_of_its_script_and_their_results(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells_of(script)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_shows_the_pictures_that_its_script_saves(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) >= script.read_text().count("lesson.save(") > 0


@pytest.mark.parametrize("page", [*SCRIPTS, TUTORIALS / "README.md"], ids=lambda path: path.stem)
def test_links_lead_to_files_that_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not link.startswith("http"):
            assert (TUTORIALS / link).exists(), link


def test_the_start_page_lists_every_tutorial():
    links = re.findall(r"^\| \d+ \| \[[^]]*\]\(([^)]*)\.ipynb\)", (TUTORIALS / "README.md").read_text(), re.MULTILINE)
    assert links == [script.stem for script in SCRIPTS]


def test_the_glossary_leads_to_pages_that_use_the_word():
    words = re.findall(r"^\| ([^|]*) \| [^|]* \| \[\d+\]\(([^)]*)\) \|$", (TUTORIALS / "README.md").read_text(), re.M)
    assert len(words) > 20
    for word, page in words:
        assert word.split(",")[0].lower() in (TUTORIALS / page).with_suffix(".py").read_text().lower(), word
