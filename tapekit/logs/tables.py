"""A log in print and in a notebook: `table` and `log_html` show the last row, `variable_html` one variable."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tapekit._tables import Html, block, html_table, text_table

FORMATS = {"mean": ".3g", "std": ".3g", "zero_fraction": ".0%", "nonfinite": "d", "update_ratio": ".1e"}
HEADS = {"zero_fraction": "zeros", "nonfinite": "not finite", "update_ratio": "update"}
SHOWN = 10  # the most variables in a notebook


def table(log: Any) -> str:
    """Return the last row as text, one line for each variable."""
    log = log.read()
    if not len(log):
        return _title(log)
    return f"{_title(log)}\n{text_table(_cells(log, range(len(log.names))), range(1, 9))}"


def log_html(log: Any) -> Html:
    """Return the last row, with a bar for each norm: of all variables, or of the ten farthest from the median norm."""
    log = log.read()
    if not len(log):
        return block(_title(log))
    with np.errstate(divide="ignore"):
        sizes = np.log10(log.norm[-1].astype(float))
    sizes[~np.isfinite(sizes) | (log.nonfinite[-1] > 0)] = np.nan
    known = sizes[~np.isnan(sizes)]
    low, middle, high = np.quantile(known, [0, 0.5, 1]) if len(known) else (0, 0, 0)
    distance = np.nan_to_num(np.abs(sizes - middle), nan=np.inf)
    shown = np.sort(np.argsort(-distance, kind="stable")[:SHOWN])
    rows = _cells(log, shown)
    rows[0].insert(2, "log scale")
    for row, size in zip(rows[1:], sizes[shown], strict=True):
        width = np.nan_to_num(4 + 96 * (size - low) / (high - low or 1))
        row.insert(2, Html(f'<div style="background:#0072B2;height:0.7em;width:{width:.0f}px"></div>'))
    more = len(log.names) - SHOWN
    note = [f"and {more} more variables, whose norms are nearer to the median"] if more > 0 else []
    return block(_title(log), html_table(rows, (1, *range(3, 9))), *note)


def variable_html(rows: Any) -> Html:
    """Return one line of statistics of a variable's rows."""
    norms = np.sort(rows.norm[~np.isnan(rows.norm)])
    sizes = f"{norms[len(norms) // 2]:.4g} (median), {norms[0]:.4g} to {norms[-1]:.4g}" if len(norms) else "unknown"
    none, bad = np.count_nonzero(rows.missing), np.count_nonzero(rows.nonfinite)
    steps = f", steps {rows.steps[0]} to {rows.steps[-1]}" if len(rows.steps) else ""
    return block(f"{len(rows.steps)} rows{steps}: norm {sizes}; None in {none}, not finite in {bad}")


def _title(log: Any) -> str:
    if not len(log):
        return "GradientLog: no rows yet"
    loss = f"{log.loss[-1]:.4g}" if log.has_loss else "not recorded"
    lost = f", {log.lost} rows lost" if log.lost else ""
    return f"step {log.steps[-1]} (row {len(log)}), loss {loss}, global norm {log.global_norm[-1]:.4g}{lost}"


def _cells(log: Any, indices: Iterable[int]) -> list[list[str]]:
    """Return the head of the table, and the cells of each of these variables."""
    rows = [["variable", *(HEADS.get(kind, kind) for kind in log.kinds)]]
    last = {kind: getattr(log, kind)[-1] for kind in log.kinds}
    missing, none = log.missing[-1], ["None"] + [""] * (len(last) - 1)
    for index in indices:
        cells = [f"{values[index]:{FORMATS.get(kind, '.4g')}}" for kind, values in last.items()]
        rows.append([log.names[index], *(none if missing[index] else cells)])
    return rows
