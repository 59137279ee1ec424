"""A `Trace` as a notebook shows it: `trace_html` returns the picture and the table."""

import base64
from html import escape
from typing import Any

from tapekit._tables import Html, block, html_table

OPENED = 20  # a table with more rows is closed at first


def trace_html(trace: Any) -> Html:
    """Return the picture, if it is small enough to be read, and the table, with the L2 norms of tensors."""
    from tapekit.plots import trace_png

    head, *rows = trace.rows()
    table: list = [(*head[:2], "shape", *head[2:])]
    for op, (name, feeds, *long, line) in zip((*trace.sources, *trace.constants, *trace.ops), rows, strict=True):
        both = zip(long, op.numbers(), strict=True)
        numbers = [Html(f'<span title="{escape(text)}">{escape(each)}</span>') for text, each in both]
        table.append((name, feeds, str(list(op.shape)), *numbers, line))
    count = f"{len(trace.ops)} operations, {len(trace.sources)} sources, {len(trace.constants)} constants"
    opened, norms = " open" if len(rows) <= OPENED else "", " (of tensors, the L2 norms)"
    details = f"<details{opened}><summary>{count}{norms}</summary>{html_table(table, right=(3, 4))}</details>"
    png, image = trace_png(trace), ""
    if png:
        width = int.from_bytes(png[16:20], "big") // 2  # two dots a pixel, for sharp screens
        data = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        image = f'<img style="max-width:100%" width="{width}" alt="the circuit" src="{data}">'
    return block(Html(image), Html(details))
