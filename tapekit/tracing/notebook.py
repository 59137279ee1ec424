"""A `Trace` as a notebook shows it: `trace_html`, the picture and the table."""

import base64
from html import escape
from typing import Any

from tapekit._tables import Html, block, html_table

OPENED = 20  # rows of a table that are shown at once; more fold


def trace_html(trace: Any) -> Html:
    """Return the circuit, if all of it can be read, and the table; of tensors, the table shows the L2 norms."""
    head, *rows = trace.rows()
    shapes = [str(list(op.shape)) for op in (*trace.sources, *trace.constants, *trace.ops)]
    cells = [
        (name, feeds, shape, _number(value), _number(gradient), line)
        for (name, feeds, value, gradient, line), shape in zip(rows, shapes, strict=True)
    ]
    table = html_table([(*head[:2], "shape", *head[2:]), *cells], right=(3, 4))
    count = f"{len(trace.ops)} operations, {len(trace.sources)} sources, {len(trace.constants)} constants"
    count += " (of tensors, the L2 norms)"
    opened = " open" if len(rows) <= OPENED else ""
    return block(
        _picture(trace),
        Html(f"<details{opened}><summary>{count}</summary>{table}</details>"),
    )


def _number(summary: str) -> Html:
    """The number at the end of a summary; all of it appears where the pointer rests."""
    return Html(f'<span title="{escape(summary)}">{escape(summary.split()[-1])}</span>')


def _picture(trace: Any) -> Html:
    """The circuit as an inline picture; nothing if it has more boxes than can be read."""
    from tapekit.plots import trace_png

    png = trace_png(trace)
    if not png:
        return Html("")
    width = int.from_bytes(png[16:20], "big") // 2  # two dots a pixel, for sharp screens
    data = base64.b64encode(png).decode()
    return Html(f'<img style="max-width:100%" width="{width}" alt="the circuit" src="data:image/png;base64,{data}">')
