"""A `Trace` as a notebook shows it: `trace_html`, the picture and the table."""

import base64
import io
from html import escape
from typing import Any

from tapekit._tables import Html, block, details, html_table
from tapekit.tracing.reduction import box_count, reduced

OPENED = 20  # rows of a table that are shown at once; more fold
SCREEN = 100  # pixels for an inch


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
    return block(_picture(trace), details(count, table, opened=len(rows) <= OPENED))


def _number(summary: str) -> Html:
    """The number at the end of a summary; all of it appears where the pointer rests."""
    return Html(f'<span title="{escape(summary)}">{escape(summary.split()[-1])}</span>')


def _picture(trace: Any) -> Html:
    """The circuit as an inline picture; nothing if it has more boxes than can be read."""
    import matplotlib.pyplot as plt

    from tapekit.plots.circuit import READABLE, plot_trace

    if box_count(*reduced(trace, READABLE)) > READABLE:
        return Html("")
    figure: Any = plot_trace(trace).figure
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=2 * SCREEN, facecolor="white")
    width = int(figure.get_figwidth() * SCREEN)
    plt.close(figure)
    data = base64.b64encode(png.getvalue()).decode()
    return Html(f'<img style="max-width:100%;width:{width}px" alt="the circuit" src="data:image/png;base64,{data}">')
