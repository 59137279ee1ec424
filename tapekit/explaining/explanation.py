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

from tapekit._sources import Call, bind, is_float, values_of
from tapekit.explaining import words
from tapekit.explaining.facts import Facts
from tapekit.explaining.inner import inner_gradients
from tapekit.explaining.ready_made import spoken_names
from tapekit.explaining.records import Explanation, Fact, Finding, path_of
from tapekit.graphs.answers import Answer
from tapekit.graphs.calls import left_at
from tapekit.graphs.capture import capture, eager_gradients, require_eager
from tapekit.graphs.flow import has_body
from tapekit.graphs.recording import PYTHON, LeftTensorFlow, Recording
from tapekit.graphs.state import ONE_AT_A_TIME
from tapekit.tracing.signals import health, in_words


def explain(fn: Callable, vars: Any, /) -> Explanation:
    """Explain for each source whether its gradient is fine, or why not, where, and what to write instead.

    `fn` may be run several times, as a graph and eagerly, and with numbers near the values that it uses in Python.
    Variables and random state keep their values.

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
    require_eager(call)
    with ONE_AT_A_TIME, inner_gradients() as inner:
        try:
            return _explained(call)
        except Exception as error:
            if not inner or "None" not in str(error):
                raise  # an error of fn's own
            return Explanation(_findings(call, ["none"] * len(call.leaves), [inner[0]] * len(call.leaves)))


def _explained(call: Call) -> Explanation:
    """Explain by the graph of `fn`, and by an eager run where there is no graph."""
    for python in (True, False):
        try:
            return _from_graph(call, python)
        except LeftTensorFlow as error:
            return _from_eager_run(call, error.frames)
        except tf.errors.OpError:  # the gradient of a tf.py_function may raise it
            continue
    return _from_eager_run(call, None)


def _from_graph(call: Call, python: bool) -> Explanation:
    """Explain a `fn` that can be traced; without `python`, no gradient passes through a tf.py_function."""
    facts, (*statuses, value) = _facts(call, python)
    recording, by_tape = facts.recording, statuses
    if recording.answers or ("zero" in statuses and any(has_body(op) for op in recording.ops)):
        # where a branch or a loop loses the gradient, a graph returns zeros, and an eager tape None
        by_tape = _run_eagerly(call)
        lost = ("none", "zero")
        if recording.answers and [each in lost for each in statuses] != [each in lost for each in by_tape]:
            return _from_eager_run(call, recording.answers[-1].frames)
    unsound = [index for index, status in enumerate(statuses) if status in ("zero", "not_finite")]
    if unsound or value == "not_finite":
        facts, _ = _facts(call, python, unsound, recording.answers)
    found = [facts.of(index, status, by_tape[index]) for index, status in enumerate(statuses)]
    cuts = [[] if fact else facts.of_cuts(index) for index, fact in enumerate(found)]
    told = facts.of_target(infinite=value == "not_finite" and value not in statuses)
    notes = tuple(dict.fromkeys(map(words.note, told)))
    return Explanation(_findings(call, by_tape, found, cuts), notes, (call.fn, call.vars))


def _facts(
    call: Call, python: bool, unsound: Sequence[int] | None = None, answers: Sequence[Answer] = ()
) -> tuple[Facts, list[str]]:
    """Return the facts in a run of the graph, and the status of each gradient and of the target.

    In the second run, for the numbers that explain the `unsound` gradients, no status is asked for.
    """
    made: list[Facts] = []

    def ask(recording: Recording) -> list:
        if not python:
            recording.no_gradient += [op for op in recording.ops if op.type in PYTHON]
        if unsound is not None:
            made.append(Facts(recording, lacking=True, unsound=unsound))
            return made[-1].signal.question
        gradients = recording.gradients(recording.sources)
        made.append(Facts(recording, lacking=None in gradients))
        asked = [*gradients, recording.target if is_float(recording.target) else None]
        return [None if tensor is None else health(tensor) for tensor in asked]

    _, answer = capture(call, ask, answers)
    if unsound is None:
        return made[-1], [in_words(row) for row in answer]
    made[-1].signal.answered(answer)
    return made[-1], []


def _from_eager_run(call: Call, left: StackSummary | None) -> Explanation:
    """Explain by an eager run a `fn` that cannot be traced; `left` is the stack where it left TensorFlow."""
    statuses = _run_eagerly(call)
    at, op = left_at(left or [])
    lost = Fact("left_tensorflow", "unknown", op=op, at=at) if left else Fact("non_differentiable_op")
    unseen = {"ok": None, "none": lost, "zero": Fact("zero", "unseen"), "not_finite": Fact("nan", "unseen")}
    return Explanation(_findings(call, statuses, [unseen[status] for status in statuses]))


def _run_eagerly(call: Call) -> list[str]:
    """Return the status of the gradient of each source from an eager tape."""
    gradients = [None if g is None else tf.convert_to_tensor(values_of(g)) for g in eager_gradients(call)]
    return [in_words(None if gradient is None else health(gradient).numpy()) for gradient in gradients]


def _findings(
    call: Call, statuses: Sequence[str], facts: Sequence[Fact | None], cuts: Sequence[Sequence[Fact]] | None = None
) -> tuple[Finding, ...]:
    """Return the finding of each source; one without a fact is fine, with a note where one of its ways is cut."""
    found = []
    for index, (name, called, fact) in enumerate(zip(call.names, spoken_names(call), facts, strict=True)):
        if fact:
            file, line, code = fact.at or (None, None, None)
            path = path_of(called, fact.path) if fact.path else ""
            why, advice = words.sentences(fact, called)
            lost = statuses[index]
            found.append(Finding(name, lost, fact.cause, fact.op or None, file, line, code, path, why, advice, called))
        else:
            notes = tuple(dict.fromkeys(words.note(cut, called) for cut in (cuts[index] if cuts else ())))
            advice = words.watching(called, call.sources[index], call.takes_vars)
            found.append(Finding(name, "ok", advice=advice, called=called, notes=notes))
    return tuple(found)
