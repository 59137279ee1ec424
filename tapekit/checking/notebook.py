"""What `check_gradient` found, as a notebook shows it: `check_html`."""

from typing import Any

from tapekit._tables import Html, block, html_table, status


def check_html(check: Any) -> Html:
    """Return the verdict, a row for each source, and the causes."""
    rows: list = [("source", "verdict", "tape", "differences", "+-", "rel. error", "checked")]
    for each in check:
        numbers = (f"{each.analytic:.6g}", f"{each.numeric:.6g}", f"{each.uncertainty:.1e}", f"{each.rel_error:.1e}")
        name = each.name + (f"{list(each.index)}" if each.index else "")
        rows.append((name, status(each.verdict), *numbers, each.checked))
    causes = [f"{each.name}: {each.cause}" for each in check if each.cause]
    return block(Html(f"gradient: {status(check.verdict)}"), html_table(rows, range(2, 6)), *causes)
