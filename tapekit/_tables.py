"""Tables as text and as HTML, for `__repr__` and `_repr_html_`; names and code are escaped, colours fit every theme."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

COLOURS = {
    **dict.fromkeys(("ok", "pass"), "#2a9d5c"),
    **dict.fromkeys(("none", "zero", "not_finite", "fail"), "#d9483b"),
    **dict.fromkeys(("inconclusive", "kink", "nondeterministic"), "#c98500"),
}
CELL = "padding:1px 8px;white-space:nowrap;max-width:48em;overflow:hidden;text-overflow:ellipsis;text-align:"
SHOWN = 10  # variables of a log


class Html(str):
    """Text that is HTML already."""


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as lines, with columns that begin at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def html_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Html:
    """Return the rows as a table: the first is its head, the columns `right` end at one place, long cells are cut."""
    lines = []
    for kind, cells in zip(["th", *["td"] * len(rows)], rows, strict=False):
        styles = [f"{CELL}{'right' if place in right else 'left'}" for place in range(len(cells))]
        titles = ["" if isinstance(cell, Html) else f' title="{escape(cell)}"' for cell in cells]
        filled = zip(styles, titles, map(_html, cells), strict=True)
        lines.append("".join(f'<{kind} style="{style}"{title}>{cell}</{kind}>' for style, title, cell in filled))
    return Html(f'<table style="font-family:monospace"><tr>{"</tr><tr>".join(lines)}</tr></table>')


def details(summary: str, *parts: str, opened: bool = False) -> Html:
    """Return parts that fold under a summary."""
    head = f"<details{' open' if opened else ''}><summary>{_html(summary)}</summary>"
    return Html(f"{head}{''.join(map(_html, parts))}</details>")


def block(*parts: str) -> Html:
    """Return parts below each other."""
    return Html("".join(f"<div>{_html(part)}</div>" for part in parts))


def status(word: str) -> Html:
    """Return the word for a verdict in its colour."""
    return Html(f'<b style="color:{COLOURS.get(word, "inherit")}">{escape(word.replace("_", " "))}</b>')


def code(text: str) -> Html:
    """Return a line of code, cut where it is long."""
    return Html(f'<code style="display:block;{CELL}left" title="{escape(text)}">{escape(text)}</code>')


def _html(text: str) -> str:
    return text if isinstance(text, Html) else escape(text)


def explanation_html(findings: Sequence, short: Callable[[str], str]) -> Html:
    """Return what `explain` found: fine sources in a line, then one part for each cause. `short` shortens a path."""
    groups: dict[tuple, list] = {}
    for each in findings:
        key = (each.status != "ok", each.status, each.cause, each.op, each.file, each.line)
        groups.setdefault(key, []).append(each)
    parts = []
    for (wrong, *_), group in sorted(groups.items(), key=lambda item: item[0][0]):
        first, names = group[0], ", ".join(each.called or each.source for each in group)
        names = names if len(names) < 100 else f"{len(group)} sources: {names[:80]}…"
        lines: list[str] = [
            Html(f"<b>{escape(names)}</b>: {status(first.status)}" + (f" ({first.cause})" if wrong else ""))
        ]
        lines += [code(f"{short(first.file)}, line {first.line}:  {first.code or ''}")] if first.file else []
        lines += [code(first.path)] if first.path else []
        lines += [f"Why: {first.why}."] if first.why else []
        lines += [f"{'Instead' if wrong else 'Note'}: {first.advice}."] if first.advice else []
        parts.append(Html(f'<div style="margin-bottom:0.7em">{block(*lines)}</div>'))
    return block(*parts)


def check_html(check: Any) -> Html:
    """Return what `check_gradient` found: the verdict, a row for each source, and the causes."""
    rows: list = [("source", "verdict", "tape", "differences", "+-", "rel. error", "checked")]
    for each in check:
        numbers = (f"{each.analytic:.6g}", f"{each.numeric:.6g}", f"{each.uncertainty:.1e}", f"{each.rel_error:.1e}")
        name = each.name + (f"{list(each.index)}" if each.index else "")
        rows.append((name, status(each.verdict), *numbers, each.checked))
    causes = [f"{each.name}: {each.cause}" for each in check if each.cause]
    return block(Html(f"gradient: {status(check.verdict)}"), html_table(rows, range(2, 6)), *causes)


def log_html(log: Any) -> Html:
    """Return the last step of a log, with a bar for each norm: all variables, or the ten that differ most."""
    head = repr(log).split("\n")[0]
    if not len(log):
        return block(head)
    sizes = {v: math.log10(norm) for v, norm in enumerate(log.norm[-1]) if 0 < norm < math.inf}
    low, high = min(sizes.values(), default=0.0), max(sizes.values(), default=0.0)
    middle = sorted(sizes.values())[len(sizes) // 2] if sizes else 0.0
    odd = [v not in sizes or log.nonfinite[-1, v] > 0 for v in range(len(log.names))]
    order = sorted(range(len(odd)), key=lambda v: (not odd[v], -abs(sizes.get(v, middle) - middle)))
    columns = (log.mean, log.std, log.max_abs, log.zero_fraction, log.nonfinite, log.update_ratio)
    formats = (".3g", ".3g", ".4g", ".0%", "d", ".1e")
    rows: list = [("variable", "norm", "log scale", "mean", "std", "largest", "zeros", "not finite", "update")]
    for v in sorted(order[:SHOWN]):
        share = 4 + 96 * (sizes[v] - low) / (high - low or 1) if v in sizes else 0
        bar = Html(f'<div style="background:#0072B2;height:0.7em;width:{share:.0f}px"></div>')
        numbers = [format(column[-1, v].item(), how) for column, how in zip(columns, formats, strict=True)]
        norm, numbers = (status("none"), [""] * 6) if log.missing[-1, v] else (f"{log.norm[-1, v]:.4g}", numbers)
        rows.append((log.names[v], norm, bar, *numbers))
    more = len(log.names) - SHOWN
    note = [f"and {more} more variables, whose norms are nearer to the median"] if more > 0 else []
    return block(head, html_table(rows, (1, 3, 4, 5, 6, 7, 8)), *note)


def variable_html(rows: Any) -> Html:
    """Return one line of statistics of a variable's rows."""
    norms = sorted(float(norm) for norm in rows.norm if norm == norm)
    middle = f"norm {norms[len(norms) // 2]:.4g} (median), {norms[0]:.4g} to {norms[-1]:.4g}" if norms else "no norms"
    none, bad = sum(map(bool, rows.missing)), sum(count > 0 for count in rows.nonfinite)
    steps = f", steps {rows.steps[0]} to {rows.steps[-1]}" if len(rows.steps) else ""
    return block(f"{len(rows.steps)} rows{steps}: {middle}; None in {none}, not finite in {bad}")
