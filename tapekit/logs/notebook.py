"""A log as a notebook shows it: `log_html`, the last step, and `variable_html`, the rows of one variable."""

from typing import Any

import numpy as np

from tapekit._tables import Html, block, html_table, status

SHOWN = 10  # variables


def log_html(log: Any) -> Html:
    """Return the last step of a log, with a bar for each norm: all variables, or the ten that differ most."""
    head = repr(log).split("\n")[0]
    if not len(log):
        return block(head)
    norm = log.norm[-1].astype(float)
    usual = (norm > 0) & np.isfinite(norm)
    sizes = np.log10(norm, where=usual, out=np.full_like(norm, np.nan))
    known = np.sort(sizes[usual]) if usual.any() else np.zeros(1)
    distance = np.abs(sizes - known[len(known) // 2])
    distance[~usual | (log.nonfinite[-1] > 0)] = np.inf
    shown = np.sort(np.argsort(-distance, kind="stable")[:SHOWN])
    formats = {"mean": ".3g", "std": ".3g", "max_abs": ".4g", "zero_fraction": ".0%", "nonfinite": "d"}
    formats["update_ratio"] = ".1e"
    rows: list = [("variable", "norm", "log scale", "mean", "std", "largest", "zeros", "not finite", "update")]
    for v in shown:
        share = 4 + 96 * (sizes[v] - known[0]) / (known[-1] - known[0] or 1) if usual[v] else 0
        bar = Html(f'<div style="background:#0072B2;height:0.7em;width:{share:.0f}px"></div>')
        numbers = [f"{norm[v]:.4g}", bar, *(f"{getattr(log, kind)[-1, v]:{form}}" for kind, form in formats.items())]
        rows.append((log.names[v], *([status("none"), bar, *[""] * 6] if log.missing[-1, v] else numbers)))
    more = len(log.names) - SHOWN
    note = [f"and {more} more variables, whose norms are nearer to the median"] if more > 0 else []
    return block(head, html_table(rows, (1, 3, 4, 5, 6, 7, 8)), *note)


def variable_html(rows: Any) -> Html:
    """Return one line of statistics of a variable's rows."""
    norms = np.sort(rows.norm[~np.isnan(rows.norm)])
    middle = (
        f"norm {norms[len(norms) // 2]:.4g} (median), {norms[0]:.4g} to {norms[-1]:.4g}" if len(norms) else "no norms"
    )
    none, bad = np.count_nonzero(rows.missing), np.count_nonzero(rows.nonfinite)
    steps = f", steps {rows.steps[0]} to {rows.steps[-1]}" if len(rows.steps) else ""
    return block(f"{len(rows.steps)} rows{steps}: {middle}; None in {none}, not finite in {bad}")
