"""What `explain` found, as a notebook shows it: `explanation_html`."""

from collections.abc import Sequence
from html import escape
from typing import Any

from tapekit._tables import CELL, Html, block, status
from tapekit.graphs.places import short


def explanation_html(findings: Sequence[Any]) -> Html:
    """Return one part for each cause, fine sources first."""
    groups: dict[tuple, list] = {}
    for each in sorted(findings, key=lambda each: each.status != "ok"):
        groups.setdefault((each.status, each.cause, each.op, each.file, each.line), []).append(each)
    return block(*map(_part, groups.values()))


def _part(group: list) -> Html:
    """The names in one line, the line of code and the way cut where they are long, and the sentences."""
    first, names = group[0], ", ".join(each.called or each.source for each in group)
    names = names if len(names) < 100 else f"{len(group)} sources: {names[:80]}…"
    cause = "" if first.status == "ok" else f" ({escape(first.cause or '')})"
    line = f"{short(first.file)}, line {first.line}:  {first.code or ''}" if first.file else ""
    words = [("Why", first.why), ("Instead" if cause else "Note", first.advice)]
    sentences = [f"{label}: {sentence}." for label, sentence in words if sentence]
    head = Html(f"<b>{escape(names)}</b>: {status(first.status)}{cause}")
    return block(head, *(code(text) for text in (line, first.path) if text), *sentences, Html("&nbsp;"))


def code(text: str) -> Html:
    """Return a line of code, cut where it is long."""
    return Html(f'<code style="display:block;{CELL}left" title="{escape(text)}">{escape(text)}</code>')
