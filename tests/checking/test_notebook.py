"""What a notebook shows of a check."""

import tensorflow as tf

import tapekit
from tests.core.test_tables import Page


def test_a_check_shows_its_verdict_and_a_row_for_each_source():
    x, y = tf.constant([0.0, 1.0]), tf.constant(2.0)
    check = tapekit.check_gradient(lambda x, y: tf.reduce_sum(tf.abs(x)) * y, [x, y])
    page = Page(check._repr_html_())
    assert page.rows[0][:3] == ["source", "verdict", "tape"]
    assert [row[1] for row in page.rows[1:]] == [each.verdict for each in check]
    assert f"x: {check['x'].cause}" in page.text
    assert page.text.startswith(f"gradient: {check.verdict}")
