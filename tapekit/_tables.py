"""Tables as text and as HTML, for `__repr__` and `_repr_html_`; names and code are escaped, colours fit every theme."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

GREEN, AMBER, RED = "#2a9d5c", "#c98500", "#d9483b"
COLOURS = {"ok": GREEN, "pass": GREEN} | dict.fromkeys(("inconclusive", "kink", "nondeterministic"), AMBER)
CELL = "padding:1px 8px;white-space:nowrap;max-width:48em;overflow:hidden;text-overflow:ellipsis;text-align:"
SHOWN = 10  # variables of a log


class Html(str):
    """Text that is HTML already."""


def text_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return the rows as lines with aligned columns; the columns in `right` end, the others begin, at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{cell:{'>' if i in right else '<'}{widths[i]}}" for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def html_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Html:
    """Return the rows as a table: the first is its head, the columns `right` end at one place, long cells are cut."""
    lines = []
    for number, cells in enumerate(rows):
        kind, line = "td" if number else "th", ""
        for place, cell in enumerate(cells):
            text, title = (cell, "") if isinstance(cell, Html) else (escape(cell), f' title="{escape(cell)}"')
            line += f'<{kind} style="{CELL}{"right" if place in right else "left"}"{title}>{text}</{kind}>'
        lines.append(f"<tr>{line}</tr>")
    return Html(f'<table style="font-family:monospace">{"".join(lines)}</table>')


def block(*parts: str) -> Html:
    """Return parts below each other."""
    return Html("".join(f"<div>{part if isinstance(part, Html) else escape(part)}</div>" for part in parts))


def status(word: str) -> Html:
    """Return the word for a verdict in its colour."""
    return Html(f'<b style="color:{COLOURS.get(word, RED)}">{escape(word.replace("_", " "))}</b>')


def code(text: str) -> Html:
    """Return a line of code, cut where it is long."""
    return Html(f'<code style="display:block;{CELL}left" title="{escape(text)}">{escape(text)}</code>')


def explanation_html(findings: Sequence, short: Callable[[str], str]) -> Html:
    """Return what `explain` found, one part for each cause, fine sources first; `short` shortens the path of a file."""
    groups: dict[tuple, list] = {}
    for each in sorted(findings, key=lambda each: each.status != "ok"):
        groups.setdefault((each.status, each.cause, each.op, each.file, each.line), []).append(each)
    parts = []
    for group in groups.values():
        first, names = group[0], ", ".join(each.called or each.source for each in group)
        names = names if len(names) < 100 else f"{len(group)} sources: {names[:80]}…"
        cause = "" if first.status == "ok" else f" ({escape(first.cause or '')})"
        line = f"{short(first.file)}, line {first.line}:  {first.code or ''}" if first.file else ""
        words = [("Why", first.why), ("Instead" if cause else "Note", first.advice)]
        sentences = [f"{label}: {sentence}." for label, sentence in words if sentence]
        head = Html(f"<b>{escape(names)}</b>: {status(first.status)}{cause}")
        parts.append(block(head, *(code(text) for text in (line, first.path) if text), *sentences, Html("&nbsp;")))
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
    fields = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite", "update_ratio")
    norms, *columns = ([number.item() for number in getattr(log, field)[-1]] for field in fields)
    formats, missing = (".3g", ".3g", ".4g", ".0%", "d", ".1e"), log.missing[-1]
    sizes = {v: math.log10(norm) for v, norm in enumerate(norms) if 0 < norm < math.inf}
    low, high = min(sizes.values(), default=0.0), max(sizes.values(), default=0.0)
    middle = sorted(sizes.values())[len(sizes) // 2] if sizes else 0.0
    odd = [v not in sizes or columns[4][v] > 0 for v in range(len(norms))]
    order = sorted(range(len(norms)), key=lambda v: (not odd[v], -abs(sizes.get(v, middle) - middle)))
    rows: list = [("variable", "norm", "log scale", "mean", "std", "largest", "zeros", "not finite", "update")]
    for v in sorted(order[:SHOWN]):
        share = 4 + 96 * (sizes[v] - low) / (high - low or 1) if v in sizes else 0
        bar = Html(f'<div style="background:#0072B2;height:0.7em;width:{share:.0f}px"></div>')
        numbers = [format(column[v], how) for column, how in zip(columns, formats, strict=True)]
        norm, numbers = (status("none"), [""] * 6) if missing[v] else (f"{norms[v]:.4g}", numbers)
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
