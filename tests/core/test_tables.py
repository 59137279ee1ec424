"""Tables as text and as HTML, of plain records and of what tapekit returns."""

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import tapekit
from tapekit._tables import (
    Html,
    block,
    check_html,
    code,
    explanation_html,
    html_table,
    log_html,
    status,
    text_table,
    variable_html,
)


class Page(HTMLParser):
    """The text of every element, and an error for elements that are not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.words, self.rows = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self):
        return "".join(self.words)


def test_the_columns_of_a_text_begin_at_one_place():
    assert text_table([("a", "bb", "c"), ("long", "", "x")]) == "a     bb  c\nlong      x"


NASTY = "</td><script>alert('&\"')</script>"


def test_names_and_code_are_escaped_and_html_is_not():
    html = block(html_table([(NASTY, Html("<b>x</b>"))]), code(NASTY), status(NASTY), NASTY)
    page = Page(html)
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.rows == [[NASTY, "x"]]
    assert page.text.count(NASTY) == 4


def test_the_columns_of_numbers_end_at_one_place_and_no_cell_is_wrapped():
    page = Page(html_table([("name", "number"), ("w", "1.5")], right=[1]))
    styles = [attributes["style"] for tag, attributes in page.tags if tag in ("th", "td")]
    assert ["text-align:right" in style for style in styles] == [False, True] * 2
    assert all("white-space:nowrap" in style and "text-overflow:ellipsis" in style for style in styles)
    assert [attributes["title"] for tag, attributes in page.tags if tag == "td"] == ["w", "1.5"]


@pytest.mark.parametrize("word", ["ok", "pass", "none", "zero", "not_finite", "fail", "kink", "inconclusive"])
def test_a_status_has_a_colour_that_can_be_read_on_white_and_on_black(word):
    ((_, attributes),) = Page(status(word)).tags
    channels = [int(attributes["style"].partition("#")[2][place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = np.dot([0.2126, 0.7152, 0.0722], linear)  # Web Content Accessibility Guidelines 2, contrast ratio
    assert 1.05 / (luminance + 0.05) > 3
    assert (luminance + 0.05) / 0.05 > 3


def test_an_explanation_shows_status_line_way_why_and_instead():
    w, u = tf.Variable([0.3, 0.5], name="w<i>"), tf.Variable(1.0, name="u")
    explanation = tapekit.explain(lambda: tf.reduce_sum(tf.round(w * 4.0)) * u, [w, u])
    page = Page(explanation_html(explanation, lambda file: file.rpartition("/")[2]))
    finding = explanation["w<i>"]
    for words in (finding.code, finding.path, f"Why: {finding.why}.", f"Instead: {finding.advice}.", "w<i>", "none"):
        assert words in page.text
    assert f"test_tables.py, line {finding.line}:" in page.text
    assert page.text.index("u") < page.text.index("w<i>")  # what is fine comes first
    colours = [attributes["style"] for tag, attributes in page.tags if tag == "b" and "style" in attributes]
    assert len(set(colours)) == 2


def test_many_sources_of_one_cause_are_one_part():
    finding = SimpleNamespace(
        source="", called="", status="none", cause="not_used", op=None, file=None, line=None, code=None, path="",
        why="it is not used", advice="use it",
    )  # fmt: skip
    findings = [SimpleNamespace(**vars(finding) | {"source": f"layer_{place}/kernel"}) for place in range(100)]
    page = Page(explanation_html(findings, str))
    assert page.text.count("Why") == 1
    assert "100 sources: layer_0/kernel, layer_1/kernel" in page.text
    assert len(page.text) < 300


def test_a_check_shows_its_verdict_and_a_row_for_each_source():
    x, y = tf.constant([0.0, 1.0]), tf.constant(2.0)
    check = tapekit.check_gradient(lambda x, y: tf.reduce_sum(tf.abs(x)) * y, [x, y])
    page = Page(check_html(check))
    assert page.rows[0][:3] == ["source", "verdict", "tape"]
    assert [row[1] for row in page.rows[1:]] == [each.verdict for each in check]
    assert f"x: {check['x'].cause}" in page.text
    assert page.text.startswith(f"gradient: {check.verdict}")


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
    page = Page(log_html(a_log(3)))
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
    page = Page(log_html(log))
    shown = [row[0] for row in page.rows[1:]]
    assert len(shown) == 10
    assert {"block_100/kernel", "block_101/kernel", "block_102/kernel", "block_0/kernel", "block_199/kernel"} <= set(
        shown
    )
    assert shown == sorted(shown, key=names.index)
    assert page.rows[1 + shown.index("block_100/kernel")][1] == "none"
    assert "and 190 more variables" in page.text


def test_an_empty_log_and_one_without_numbers_are_shown():
    assert Page(log_html(tapekit.GradientLog())).text == "GradientLog: no rows yet"
    log, w = tapekit.GradientLog(), tf.Variable([1.0], name="w")
    log.record([None], [w])
    assert Page(log_html(log)).rows[1][:2] == ["w", "none"]


def test_the_rows_of_a_variable_are_one_line():
    log, w = tapekit.GradientLog(), tf.Variable([0.0, 0.0], name="w")
    for gradient in ([3.0, 4.0], [6.0, 8.0], None, [np.nan, 2.0], [0.3, 0.4]):
        log.record([None if gradient is None else tf.constant(gradient)], [w])
    text = Page(variable_html(log["w"])).text
    assert text == "5 rows, steps 0 to 4: norm 5 (median), 0.5 to 10; None in 1, not finite in 1"
