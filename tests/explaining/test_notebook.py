"""What a notebook shows of an explanation."""

from types import SimpleNamespace

import tensorflow as tf

import tapekit
from tapekit.explaining.notebook import code, explanation_html
from tests.core.test_tables import NASTY, Page


def test_code_is_escaped():
    page = Page(code(NASTY))
    assert [tag for tag, _ in page.tags] == ["code"]
    assert page.text == NASTY


def test_an_explanation_shows_status_line_way_why_and_instead():
    w, u = tf.Variable([0.3, 0.5], name="w<i>"), tf.Variable(1.0, name="u")
    explanation = tapekit.explain(lambda: tf.reduce_sum(tf.round(w * 4.0)) * u, [w, u])
    page = Page(explanation_html(explanation.findings))
    finding = explanation["w<i>"]
    for words in (finding.code, finding.path, f"Why: {finding.why}.", f"Instead: {finding.advice}.", "w<i>", "none"):
        assert words in page.text
    assert f"test_notebook.py, line {finding.line}:" in page.text
    assert page.text.index("u") < page.text.index("w<i>")  # what is fine comes first
    colours = [attributes["style"] for tag, attributes in page.tags if tag == "b" and "style" in attributes]
    assert len(set(colours)) == 2


def test_many_sources_of_one_cause_are_one_part():
    finding = SimpleNamespace(
        source="", called="", status="none", cause="not_used", op=None, file=None, line=None, code=None, path="",
        why="it is not used", advice="use it",
    )  # fmt: skip
    findings = [SimpleNamespace(**vars(finding) | {"source": f"layer_{place}/kernel"}) for place in range(100)]
    page = Page(explanation_html(findings))
    assert page.text.count("Why") == 1
    assert "100 sources: layer_0/kernel, layer_1/kernel" in page.text
    assert len(page.text) < 300
