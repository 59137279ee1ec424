"""What the cells of a notebook display, from a real kernel."""

import asyncio
import base64
import io
import re
import textwrap
import warnings

import nbclient
import nbformat
import pytest
from PIL import Image

CELLS = {
    "setup": """
        import os
        os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")
        import matplotlib, tensorflow as tf, tapekit
        %matplotlib inline
        w, u = tf.Variable([0.3, 0.5], name="w"), tf.Variable(1.0, name="u<b>")
        loss = lambda: tf.reduce_sum(tf.round(w * 4.0) * w) * u
        settings = dict(matplotlib.rcParams)
        """,
    "trace": "tapekit.trace(loss, [w, u])",
    "text": "print(repr(tapekit.trace(lambda x: x * x, 3.0)))",
    "large": "tapekit.trace(lambda *terms: tf.add_n(terms), [1.0] * 80)",
    "film": "tapekit.animate_trace(tapekit.trace(lambda x: x * x, 3.0))",
    "explanation": "tapekit.explain(lambda: tf.reduce_sum(tf.round(w * 4.0)) * u, [w, u])",
    "check": "tapekit.check_gradient(lambda x: tf.reduce_sum(tf.abs(x)), tf.constant([0.0, 1.0]))",
    "log": """
        log = tapekit.GradientLog()
        for step in range(3):
            log.record([tf.constant([1.0, 2.0]) * 0.5**step, None], [w, u], loss=1.0)
        log
        """,
    "variable": "log['w']",
    "figures": "import matplotlib.pyplot as plt; dict(matplotlib.rcParams) == settings, plt.get_fignums()",
}


@pytest.fixture(scope="module")
def displayed():
    """The outputs of each cell."""
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's event loop, not of tapekit
        asyncio.run(nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").async_execute())
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def test_a_trace_shows_its_picture_and_its_table(displayed):
    (output,) = displayed["trace"]
    html, text = output.data["text/html"], output.data["text/plain"]
    assert '<img style="max-width:100%' in html
    assert 'src="data:image/png;base64,' in html
    assert "<details open>" in html
    assert "u&lt;b&gt;" in html
    assert "u<b>" not in html
    assert "<script" not in html
    assert text.startswith("op ")


def test_the_text_of_a_trace_stays_the_text(displayed):
    (output,) = displayed["text"]
    assert output.text.splitlines()[0].split() == ["op", "from", "value", "gradient", "source", "line"]


def test_a_trace_that_is_too_large_to_read_has_a_folded_table_and_no_picture(displayed):
    (output,) = displayed["large"]
    assert "<img" not in output.data["text/html"]
    assert "<details>" in output.data["text/html"]


def test_a_film_plays_without_a_setting_or_a_script_and_shows_no_second_picture(displayed):
    (output,) = displayed["film"]
    html = output.data["text/html"]
    assert "<script" not in html
    assert "http" not in html
    (gif,) = re.findall(r'src="data:image/gif;base64,([^"]+)"', html)
    image = Image.open(io.BytesIO(base64.b64decode(gif)))
    assert image.n_frames == 7  # the whole, the source, the product, its gradient, two edges, and the end
    assert image.info["duration"] == 600
    assert image.info["loop"] == 0


def test_no_figure_is_left_open_and_no_setting_changed(displayed):
    (output,) = displayed["figures"]
    assert output.data["text/plain"] == "(True, [])"


def test_an_explanation_shows_its_status_in_colour_and_the_cell_and_line(displayed):
    html = displayed["explanation"][0].data["text/html"]
    assert "notebook cell, line 1" in html
    assert "explain(lambda: tf.reduce_sum(tf.round(w * 4.0))" in html
    assert html.count('<b style="color:#') == 2
    assert "Instead: " in html
    assert displayed["explanation"][0].data["text/plain"].startswith("Fine (")


def test_a_check_shows_its_verdict_in_colour_and_its_table(displayed):
    html = displayed["check"][0].data["text/html"]
    assert html.startswith('<div>gradient: <b style="color:#')
    assert "<table" in html
    assert displayed["check"][0].data["text/plain"].split()[:2] == ["source", "verdict"]


def test_a_log_shows_a_bar_for_each_norm(displayed):
    html = displayed["log"][0].data["text/html"]
    assert "step 2 (row 3)" in html
    assert html.count("background:#0072B2") == 2
    assert displayed["log"][0].data["text/plain"].startswith("step 2 (row 3)")


def test_the_rows_of_a_variable_are_a_line_not_arrays(displayed):
    html = displayed["variable"][0].data["text/html"]
    assert html == "<div>3 rows, steps 0 to 2: norm 1.118 (median), 0.559 to 2.236; None in 0, not finite in 0</div>"
