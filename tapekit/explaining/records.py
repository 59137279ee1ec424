"""The records of `explain`: `Finding` and `Explanation` for the user, and `Fact`, from which a finding is written."""

import contextlib
import dataclasses
import functools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

import tensorflow as tf

from tapekit._names import place_of, some
from tapekit._tables import CELL, Html, block, status
from tapekit.graphs.flow import own_gradient
from tapekit.graphs.places import Place, place, short
from tapekit.graphs.recording import IDENTITIES
from tapekit.tracing import Trace, trace


class Fact(NamedTuple):
    """What was measured about the gradient of one source.

    ``cause`` is one word, and ``detail`` tells apart the ways in which it can happen. ``kind`` is the type of the
    operation at fault, ``op`` what it is called in the user's program, ``at`` its line, and ``path`` the operations
    from the source up to it. ``dtype`` is the one that has no derivative, ``other`` another function, tensor or
    length that is concerned, and ``ready`` describes the tensors that were made before `fn` ran.
    """

    cause: str
    detail: str = ""
    kind: str = ""
    op: str | None = None
    at: Place | None = None
    path: tuple[tf.Operation, ...] = ()
    dtype: str = ""
    other: str = ""
    ready: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of the gradient of one source.

    Attributes:
        source: the name of the source.
        status: "ok", "none", "zero" (every element is 0) or "not_finite" (an element is NaN or infinite).
        cause: one word, None if the status is "ok".
        op: TensorFlow's type of the operation at fault, or the Python call.
        file, line, code: the line where it happened.
        path: the operations from the source up to there.
        why, advice: sentences.
        called: `source`, or the name of the Python variable where `source` is only a place in `vars`.
        notes: sentences on something that may be intended: no gradient passes one of the ways to the target.
    """

    source: str
    status: str
    cause: str | None = None
    op: str | None = None
    file: str | None = None
    line: int | None = None
    code: str | None = None
    path: str = ""
    why: str = ""
    advice: str = ""
    called: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _text([self])


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One `Finding` for each source, in order, and `notes` on the calculation. True if every source is ok."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    calculation: tuple[Callable, Any] = dataclasses.field(default=(tf.identity, None), repr=False, compare=False)

    @functools.cached_property
    def trace(self) -> Trace | None:
        """The trace, made when it is first asked for; None if `fn` cannot be traced, or a source is no dense float."""
        with contextlib.suppress(RuntimeError, TypeError):
            return trace(*self.calculation)
        return None

    def __bool__(self) -> bool:
        return all(finding.status == "ok" for finding in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, which: int | str) -> Finding:
        """Return the finding at a place, or of the source with a name."""
        if isinstance(which, str):
            sources = [finding.source for finding in self.findings]
            spoken = [finding.called for finding in self.findings]
            which = place_of("Explanation", sources if which in sources else spoken, which)
        return self.findings[which]

    def __repr__(self) -> str:
        return _text(self.findings, self.notes)

    def _repr_html_(self) -> str:
        return block(*(each.html() for each in _paragraphs(self.findings, self.notes)))


def path_of(name: str, ops: Sequence[tf.Operation]) -> str:
    """Return the path from the source `name` as text: ``w -> Mul (line 7) -> ArgMax (line 8) x``."""
    steps = []
    for op in ops:
        if op.type not in IDENTITIES or op is ops[-1]:
            at, kind = place(op.traceback), "custom gradient" if own_gradient(op) else op.type
            steps.append(f"{kind} (line {at.line})" if at else kind)
    if len(steps) > 6:
        steps = [*steps[:2], "...", *steps[-3:]]
    return " -> ".join([name, *steps]) + " x"


class _Paragraph(NamedTuple):
    """A part of the text, about sources of one ``status``: a sentence, lines of code or of a path, more sentences."""

    status: str
    head: str
    code: Sequence[str] = ()
    sentences: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"    {line}" for line in self.code]
        return "\n".join([self.head, *lines, *(_wrapped(each, "    ") for each in self.sentences)])

    def html(self) -> Html:
        """Return the part as HTML, the lines of code cut where they are long."""
        style = f"display:block;{CELL}left"
        code = [Html(f'<code style="{style}" title="{escape(line)}">{escape(line)}</code>') for line in self.code]
        return block(Html(f"{status(self.status)} {escape(self.head)}"), *code, *self.sentences, Html("&nbsp;"))


def _text(findings: Sequence[Finding], notes: Sequence[str] = ()) -> str:
    return "\n\n".join(map(str, _paragraphs(findings, notes)))


def _paragraphs(findings: Sequence[Finding], notes: Sequence[str]) -> Iterator[_Paragraph]:
    """Yield one part for what is fine, one for each group of findings, and one for each note."""
    fine = [finding for finding in findings if finding.status == "ok"]
    groups: dict[tuple, list[Finding]] = {}
    for each in findings:
        if each.status != "ok":
            groups.setdefault((each.status, each.cause, each.op, each.file, each.line), []).append(each)
    if fine:
        watched = [f"({finding.advice}.)" for finding in fine[:3] if finding.advice]
        told = dict.fromkeys(f"Note: {note}." for finding in fine for note in finding.notes)
        head = f"Fine ({len(fine)} of {len(findings)}): {some([each.called for each in fine])}."
        yield _Paragraph("ok", head, (), [*watched, *told])
    for first, *rest in groups.values():
        gradient = {"none": "None", "zero": "0 everywhere", "not_finite": "NaN or inf"}[first.status]
        head = f"{some([each.called for each in (first, *rest)])}: the gradient is {gradient} ({first.cause})."
        code = f":  {first.code}" if first.code else ""
        lines = [f"{short(first.file)}, line {first.line}{code}"] if first.file else []
        sentences = [f"Why: {first.why}.", f"Instead: {first.advice}."]
        yield _Paragraph(first.status, head, [*lines, *filter(None, [first.path])], sentences)
    yield from (_Paragraph("ok", _wrapped(f"Note: {note}.", "")) for note in notes)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, 88, initial_indent=indent, subsequent_indent=indent + "    ", break_long_words=False)
