"""What a notebook shows of an explanation."""

import tensorflow as tf

import tapekit
from tests.core.test_tables import Page


def test_an_explanation_shows_status_line_way_why_and_instead():
    w, u = tf.Variable([0.3, 0.5], name="w<i>"), tf.Variable(1.0, name="u")
    explanation = tapekit.explain(lambda: tf.reduce_sum(tf.round(w * 4.0)) * u, [w, u])
    page = Page(explanation._repr_html_())
    finding = explanation["w<i>"]
    for words in (finding.code, finding.path, f"Why: {finding.why}.", f"Instead: {finding.advice}.", "w<i>", "none"):
        assert words in page.text
    assert f"test_notebook.py, line {finding.line}:" in page.text
    assert page.text.index("Fine (1 of 2): u.") < page.text.index("w<i>")  # what is fine comes first
    colours = [attributes["style"] for tag, attributes in page.tags if tag == "b" and "style" in attributes]
    assert len(set(colours)) == 2


def test_a_note_is_shown():
    w = tf.Variable([0.3, 0.5], name="w")
    shown = Page(tapekit.explain(lambda: tf.reduce_sum(tf.round(w) + w), w)._repr_html_()).text
    assert "Note: one of the ways from w to the target is cut: no gradient passes Round on line" in shown


def test_many_sources_of_one_cause_are_one_part():
    sources = {f"layer_{place}/kernel": tf.Variable(1.0) for place in range(100)}
    explanation = tapekit.explain(lambda **given: tf.round(tf.add_n([*given.values()])), sources)
    page = Page(explanation._repr_html_())
    assert page.text.count("Why") == 1
    assert "layer_0/kernel, layer_1/kernel" in page.text
    assert len(page.text) < 700
