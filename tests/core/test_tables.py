"""Tables as text and as HTML."""

from html.parser import HTMLParser

import numpy as np
import pytest

from tapekit._tables import Html, block, html_table, status, text_table


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


def test_names_are_escaped_and_html_is_not():
    html = block(html_table([(NASTY, Html("<b>x</b>"))]), status(NASTY), NASTY)
    page = Page(html)
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.rows == [[NASTY, "x"]]
    assert page.text.count(NASTY) == 3


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
