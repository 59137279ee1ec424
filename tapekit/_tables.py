"""Tables as text and as HTML, for `__repr__` and `_repr_html_`; names and code are escaped, colours fit every theme."""

from collections.abc import Sequence
from html import escape

GREEN, AMBER, RED = "#2a9d5c", "#c98500", "#d9483b"
COLOURS = {"ok": GREEN, "pass": GREEN} | dict.fromkeys(("inconclusive", "kink", "nondeterministic"), AMBER)
CELL = "padding:1px 8px;white-space:nowrap;max-width:48em;overflow:hidden;text-overflow:ellipsis;text-align:"


class Html(str):
    """Text that is HTML already."""


def text_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return the rows as lines with aligned columns; the columns with the numbers `right` are aligned to the right."""
    columns = []
    for place, column in enumerate(zip(*rows, strict=True)):
        side, width = ">" if place in right else "<", max(map(len, column))
        columns.append([f"{cell:{side}{width}}" for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def html_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Html:
    """Return the rows as a table, as `text_table` does. The first row is the head. Long cells are cut."""
    html = ""
    for number, row in enumerate(rows):
        kind = "td" if number else "th"
        html += "<tr>"
        for place, cell in enumerate(row):
            text, title = (cell, "") if isinstance(cell, Html) else (escape(cell), f' title="{escape(cell)}"')
            html += f'<{kind} style="{CELL}{"right" if place in right else "left"}"{title}>{text}</{kind}>'
        html += "</tr>"
    return Html(f'<table style="font-family:monospace">{html}</table>')


def block(*parts: str) -> Html:
    """Return the parts, one below the other."""
    return Html("".join(f"<div>{part if isinstance(part, Html) else escape(part)}</div>" for part in parts))


def status(word: str) -> Html:
    """Return a verdict in its colour."""
    return Html(f'<b style="color:{COLOURS.get(word, RED)}">{escape(word.replace("_", " "))}</b>')
