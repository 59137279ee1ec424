"""What is printed of a log, and what a notebook shows."""

import numpy as np
import tensorflow as tf

import tapekit
from tests.core.test_tables import Page


def a_log(count, updates=False):
    log = tapekit.GradientLog(updates=updates)
    variables = [tf.Variable(tf.ones([2]), name=f"block_{place}/kernel") for place in range(count)]
    log.record([tf.constant([3.0, 4.0]) * 10.0**-place for place in range(count)], variables, loss=2.0)
    return log


def widths(page):
    return [
        a["style"].rpartition("width:")[2] for tag, a in page.tags if tag == "div" and "width" in a.get("style", "")
    ]


def test_a_log_shows_its_last_step_with_a_bar_for_each_norm():
    page = Page(a_log(3)._repr_html_())
    assert [row[:2] for row in page.rows[1:]] == [
        ["block_0/kernel", "5"],
        ["block_1/kernel", "0.5"],
        ["block_2/kernel", "0.05"],
    ]
    assert widths(page) == ["100px", "52px", "4px"]  # on a log scale
    assert page.text.startswith("step 0 (row 1), loss 2, global norm")


def test_of_200_variables_the_ten_most_telling_are_shown():
    log, names = tapekit.GradientLog(), [f"block_{place}/kernel" for place in range(200)]
    norms = np.geomspace(1e-3, 1e3, 200)
    gradients = [tf.constant([norm, 0.0], tf.float32) for norm in norms]
    gradients[100], gradients[101], gradients[102] = None, tf.constant([np.nan, 1.0]), tf.zeros([2])
    log.record(gradients, [tf.Variable(tf.ones([2]), name=name) for name in names])
    page = Page(log._repr_html_())
    shown = [row[0] for row in page.rows[1:]]
    assert len(shown) == 10
    assert {"block_100/kernel", "block_101/kernel", "block_102/kernel", "block_0/kernel", "block_199/kernel"} <= set(
        shown
    )
    assert shown == sorted(shown, key=names.index)
    assert page.rows[1 + shown.index("block_100/kernel")][1] == "None"
    assert "and 190 more variables" in page.text


def test_an_empty_log_and_one_without_numbers_are_shown():
    assert Page(tapekit.GradientLog()._repr_html_()).text == "GradientLog: no rows yet"
    log, w = tapekit.GradientLog(), tf.Variable([1.0], name="w")
    log.record([None], [w])
    assert Page(log._repr_html_()).rows[1][:2] == ["w", "None"]


def test_the_rows_of_a_variable_are_one_line():
    log, w = tapekit.GradientLog(), tf.Variable([0.0, 0.0], name="w")
    for gradient in ([3.0, 4.0], [6.0, 8.0], None, [np.nan, 2.0], [0.3, 0.4]):
        log.record([None if gradient is None else tf.constant(gradient)], [w])
    text = Page(log["w"]._repr_html_()).text
    assert text == "5 rows, steps 0 to 4: norm 5 (median), 0.5 to 10; None in 1, not finite in 1"
