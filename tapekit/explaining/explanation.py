"""`explain`: why a gradient is None, zero or not finite, at which operation, on which line, and the repair.

>>> w = tf.Variable(0.3, name="w")
>>> print(explain(lambda: tf.round(w * 4.0), w))
w: the gradient is None (non_differentiable_op).
    ...
    w -> Mul (line 1) -> Round (line 1) x
    ...
"""

from collections.abc import Callable, Sequence
from traceback import StackSummary
from typing import Any

import tensorflow as tf

from tapekit._names import some
from tapekit._sources import Call, bind, is_float, values_of
from tapekit.explaining import words
from tapekit.explaining.calls import left_at, path_of
from tapekit.explaining.facts import Links, fact_of_nan, fact_of_value, fact_of_zero, hear
from tapekit.explaining.inner import inner_gradients
from tapekit.explaining.ready_made import spoken_names
from tapekit.explaining.records import Explanation, Fact, Finding
from tapekit.explaining.signals import health, in_words
from tapekit.graphs.capture import outside_of_graphs, recorded
from tapekit.graphs.eager import eager_gradients
from tapekit.graphs.flow import has_body
from tapekit.graphs.recording import LeftTensorFlow, Recording
from tapekit.graphs.state import ONE_AT_A_TIME


def explain(fn: Callable, vars: Any, /) -> Explanation:
    """Explain for each source whether its gradient is fine, or why not, where, and what to write instead.

    `fn` is traced to a graph, and TensorFlow is asked at each operation whether a gradient passes through it. Where
    `fn` uses the value of a tensor in Python, it is traced again with that value. Variables and random state keep their
    values.

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
    with ONE_AT_A_TIME, inner_gradients() as inner:
        try:
            return _explained(call)
        except Exception:
            if not inner:
                raise  # an error of fn's own
            return Explanation(_findings(call, ["none"] * len(call.leaves), [inner[0]] * len(call.leaves)))


def _explained(call: Call) -> Explanation:
    """Explain by the graph of `fn`, and by an eager run where there is no graph."""
    left = None
    if not any(isinstance(source, tf.RaggedTensor) for source in call.sources):
        for python in (True, False):
            try:
                return _from_graph(call, python)
            except LeftTensorFlow as error:
                left = error.frames
                break
            except tf.errors.OpError:  # as of the gradient of a tf.py_function
                continue
    return _from_eager_run(call, left)


def _from_graph(call: Call, python: bool) -> Explanation:
    """Explain a `fn` that can be traced; without `python`, no gradient passes through a tf.py_function."""
    links: list[Links] = []

    def ask(recording: Recording) -> list:
        if not python:
            recording.no_gradient += [op for op in recording.ops if op.type in words.PYTHON]
        gradients = recording.gradients(recording.sources)
        links.append(Links(recording, all_pass=None not in gradients))
        asked = [*gradients, recording.target if is_float(recording.target) else None]
        return [None if tensor is None else health(tensor) for tensor in asked]

    recording, (*answer, value) = recorded(call, ask)
    statuses = by_tape = [in_words(row) for row in answer]
    answers = recording.answers
    if answers or ("zero" in statuses and any(has_body(op) for op in recording.ops)):
        # where a branch or a loop loses the gradient, a graph returns zeros, and an eager tape None
        by_tape = _run_eagerly(call)
        lost = ("none", "zero")
        if answers and [word in lost for word in statuses] != [word in lost for word in by_tape]:
            return _from_eager_run(call, answers[-1].frames)
    unsound = [index for index, word in enumerate(statuses) if word in ("zero", "not_finite")]
    infinite = in_words(value) == "not_finite"
    signal = hear(recording, unsound) if unsound or infinite else None
    facts: list[Fact | None] = [None] * len(statuses)
    for index, word in enumerate(statuses):
        if word == "none":
            facts[index] = links[-1].fact_of_none(index)
        elif word != "ok" and signal:
            zero = word == "zero"
            facts[index] = fact_of_zero(signal, index, by_tape[index]) if zero else fact_of_nan(signal, index)
    told = [words.note(fact) for fact in links[-1].squares()]
    if infinite and signal and "not_finite" not in statuses:
        told.append(words.note(fact_of_value(signal, [signal.flow.recording.target]) or Fact("nan", "given")))
    if others := links[-1].others():
        told.append(f"Also read, but not in vars: {some([each.name for each in others])}")
    cuts = [[] if fact else links[-1].cuts_of(index) for index, fact in enumerate(facts)]
    whole = not recording.variables and not answers and all(is_float(source) for source in call.sources)
    calculation = (call.fn, call.vars) if whole else None
    return Explanation(_findings(call, by_tape, facts, cuts), tuple(dict.fromkeys(told)), calculation)


def _from_eager_run(call: Call, left: StackSummary | None) -> Explanation:
    """Explain a `fn` that cannot be traced: what an eager run tells, and the call at which it left TensorFlow."""
    statuses = _run_eagerly(call)
    at, op = left_at(left) if left else (None, None)
    facts: list[Fact | None] = []
    for word, source in zip(statuses, call.sources, strict=True):
        if word == "ok":
            facts.append(None)
        elif word != "none":
            facts.append(Fact("zero" if word == "zero" else "nan", "unseen"))
        elif not is_float(source):
            facts.append(Fact("integer_dtype", "source", dtype=source.dtype.name))
        elif left:
            facts.append(Fact("left_tensorflow", "unknown", op=op, at=at))
        else:
            facts.append(Fact("non_differentiable_op"))
    return Explanation(_findings(call, statuses, facts, [[] for _ in statuses]))


def _run_eagerly(call: Call) -> list[str]:
    """Return the status of the gradient of each source from an eager tape."""
    gradients = [None if g is None else tf.convert_to_tensor(values_of(g)) for g in eager_gradients(call)]
    return [in_words(None if gradient is None else health(gradient).numpy()) for gradient in gradients]


def _findings(
    call: Call, statuses: Sequence[str], facts: Sequence[Fact | None], cuts: Sequence[Sequence[Fact]] = ()
) -> tuple[Finding, ...]:
    """Return the finding of each source; a source without a fact is fine, with a note where one of its ways is cut."""
    found = []
    names = call.names
    for index, (name, called, fact) in enumerate(zip(names, spoken_names(call, names), facts, strict=True)):
        if fact:
            file, line, code = fact.at or (None, None, None)
            path = path_of(called, fact.path) if fact.path else ""
            why, advice = words.sentences(fact, called)
            lost = statuses[index]
            found.append(Finding(name, lost, fact.cause, fact.op, file, line, code, path, why, advice, called))
        else:
            notes = tuple(dict.fromkeys(words.note(cut, called) for cut in cuts[index]))
            advice = words.watching(called, call.sources[index], call.takes_vars)
            found.append(Finding(name, "ok", advice=advice, called=called, notes=notes))
    return tuple(found)
