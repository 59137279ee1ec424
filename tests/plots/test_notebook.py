"""What the cells of a notebook display, from a real kernel."""

import asyncio
import textwrap
import warnings

import pytest

nbclient = pytest.importorskip("nbclient")
import nbformat  # noqa: E402

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


def test_a_film_plays_once_without_a_setting_and_shows_no_second_picture(displayed):
    (output,) = displayed["film"]
    assert "<img" in output.data["text/html"]
    assert "animation" in output.data["text/html"].lower()


def test_no_figure_is_left_open_and_no_setting_changed(displayed):
    (output,) = displayed["figures"]
    assert output.data["text/plain"] == "(True, [])"
