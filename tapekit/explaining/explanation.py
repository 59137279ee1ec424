"""`explain`: why a gradient is None, zero or not finite, at which operation, on which line, and the repair.

>>> w = tf.Variable(0.3, name="w")
>>> print(explain(lambda: tf.round(w * 4.0), w))
w: the gradient is None (non_differentiable_op).
    ...
    w -> Mul (line 1) -> Round (line 1) x
    ...
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, bind, is_float
from tapekit.explaining import words
from tapekit.explaining.calls import left_at, path_of
from tapekit.explaining.eager import flags, reaches, run_eagerly, status
from tapekit.explaining.facts import Links, fact_of_nan, fact_of_zero, hear
from tapekit.explaining.flow import has_body
from tapekit.explaining.ready_made import spoken_names
from tapekit.explaining.records import Explanation, Fact, Finding
from tapekit.graphs.capture import LeftTensorFlow, Recording, capture, outside_of_graphs
from tapekit.graphs.state import draws_kept, undisturbed
from tapekit.tracing import trace


def explain(fn: Callable, vars: Any, /) -> Explanation:
    """Explain for each source whether its gradient is fine, or why not, where, and what to write instead.

    `fn` is traced to a graph, and TensorFlow is asked at each operation whether a gradient passes through it. Where
    `fn` cannot be traced it is run eagerly, and the line at which tracing failed is reported. Variables and random
    state keep their values.

    Args:
        fn: returns the target; called as `tapekit.gradient` calls it.
        vars: the sources, as for `tapekit.gradient`. Integer sources are allowed, and get a finding.

    Returns:
        An `Explanation`: iterate over it for one `Finding` per source, print it to read it.

    Raises:
        RuntimeError: if called while a `tf.function` is traced.
        TypeError, ValueError: if `fn` or `vars` do not fit, as for `tapekit.gradient`.

    Example:
        >>> w = tf.Variable([0.2, 0.9])
        >>> finding, = explain(lambda: tf.argmax(w), w)
        >>> finding.status, finding.cause, finding.op
        ('none', 'non_differentiable_op', 'ArgMax')
    """
    call = bind("explain", fn, vars, integers=True)
    outside_of_graphs("explain")
    error: Exception | None = None
    with undisturbed():
        if not any(isinstance(source, tf.RaggedTensor) for source in call.sources):
            try:
                return _from_graph(call)
            except (LeftTensorFlow, tf.errors.OpError) as failure:
                error = failure
        with draws_kept():  # an error of fn's own is raised again here
            return _from_eager_run(call, error)


def _from_graph(call: Call) -> Explanation:
    """Explain a `fn` that can be traced."""
    links: list[Links] = []

    def ask(recording: Recording) -> list:
        gradients = recording.gradients(recording.sources)
        if any(gradient is None for gradient in gradients):
            links.append(Links(recording))
        return [None if gradient is None else flags(gradient) for gradient in gradients]

    recording, answer = capture(call, ask)
    statuses = by_tape = [status(*pair) for pair in zip(answer, call.sources, strict=True)]
    if "zero" in statuses and any(has_body(op) for op in recording.ops):
        # where a branch or a loop loses the gradient, a graph returns zeros, and an eager tape None
        by_tape = run_eagerly(call)
    signal = hear(call, statuses) if {"zero", "not_finite"} & {*statuses} else None
    facts: list[Fact | None] = []
    for index, word in enumerate(statuses):
        if word == "none":
            facts.append(links[-1].fact_of_none(index))
        elif word == "zero" and signal:
            facts.append(fact_of_zero(signal, index, by_tape[index]))
        elif word == "not_finite" and signal:
            facts.append(fact_of_nan(signal, index))
        else:
            facts.append(None)
    whole = not recording.variables and all(is_float(source) for source in call.sources)
    return Explanation(_findings(call, by_tape, facts), trace(call.fn, call.vars) if whole else None)


def _from_eager_run(call: Call, error: Exception | None) -> Explanation:
    """Explain a `fn` that cannot be traced: the numbers of an eager run, and the line at which tracing failed."""
    at, op = left_at(error) if error else (None, None)
    facts: list[Fact | None] = []
    for index, (word, source) in enumerate(zip(statuses := run_eagerly(call), call.sources, strict=True)):
        if word == "ok":
            facts.append(None)
        elif word != "none":
            facts.append(Fact("zero" if word == "zero" else "nan"))
        elif not is_float(source):
            facts.append(Fact("integer_dtype", "source", dtype=source.dtype.name))
        elif (op or "").split(".")[-1] in ("Variable", "constant", "convert_to_tensor"):
            facts.append(Fact("rewrapped", op=op, at=at))
        elif not reaches(call, index):
            facts.append(Fact("not_used"))
        elif at or isinstance(error, LeftTensorFlow):
            facts.append(Fact("left_tensorflow", op=op, at=at))
        else:
            facts.append(Fact("non_differentiable_op"))
    return Explanation(_findings(call, statuses, facts))


def _findings(call: Call, statuses: Sequence[str], facts: Sequence[Fact | None]) -> tuple[Finding, ...]:
    """Return the finding of each source; a source without a fact is fine."""
    called = spoken_names(call)
    return tuple(
        _finding(call.names[index], called[index], statuses[index], fact) if fact else _fine(call, index, called[index])
        for index, fact in enumerate(facts)
    )


def _fine(call: Call, index: int, called: str) -> Finding:
    source, advice = call.sources[index], ""
    if not call.takes_vars and not (isinstance(source, tf.Variable) and source.trainable):
        advice = words.UNWATCHED[isinstance(source, tf.Variable)].format(called)
    return Finding(call.names[index], "ok", advice=advice, called=called)


def _finding(source: str, called: str, status: str, fact: Fact) -> Finding:
    file, line, code = fact.at or (None, None, None)
    why, advice = words.sentences(fact, called)
    shown = path_of(called, fact.path) if fact.path else ""
    return Finding(source, status, fact.cause, fact.op, file, line, code, shown, why, advice, called)
