"""The words of `explain`: why a gradient is missing, what to write instead, and the types that choose between them."""

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tapekit._names import some
from tapekit.graphs.capture import short

PYTHON = {"PyFunc": "tf.numpy_function", "PyFuncStateless": "tf.numpy_function", "EagerPyFunc": "tf.py_function"}
# Steps: their registered gradient is zero, not None.
FLAT = {"Sign"}
UNWATCHED = (
    "{0} is a tensor: tapekit watches it, a bare tape needs tape.watch({0}) before it is used",
    "{0} is not trainable: tapekit watches it, a bare tape needs tape.watch({0})",
)

_CAME_OUT = {"none": "None", "zero": "0 everywhere", "not_finite": "NaN or inf"}
_FLAT_STEP = (
    "{op} is flat, and then jumps: a small change of {name} changes nothing behind it",
    "If the step is wanted, pass the gradient straight through, x + tf.stop_gradient(step(x) - x); if not, leave it "
    "out of the loss",
)
_DECISION = (
    "{op} says yes or no: a small change of {name} changes nothing behind it, until it jumps",
    "Make it smooth, tf.sigmoid((x - threshold) / width), and keep the hard one for the metric",
)
_PLACE = (
    "{op} gives a place, not a quantity: a small change of {name} leaves it where it is, until it jumps",
    "Train on the scores themselves: tf.nn.softmax(scores) in its place, or a cross-entropy loss on them",
)
_DRAW = (
    "{op} draws at random, and TensorFlow does not know how the draw would move with {name}",
    "Write the sample as a function of its parameters, as in mean + std * tf.random.normal(shape)",
)
_COUNT = (
    "{op} counts, and a small change of {name} moves nothing from one bin to the next",
    "Count softly: tf.reduce_sum(tf.nn.softmax(-((x[:, None] - centres) ** 2) / width), axis=0)",
)
_SAFE = {"Log": "tf.math.log(safe)", "RealDiv": "1 / safe", "Pow": "safe ** a", "Sqrt": "tf.sqrt(safe)"}
_UNKNOWN = (
    "TensorFlow has no derivative of {op} that could go back to {name}",
    "Replace {op} by something that is smooth in {name}, or let the loss reach {name} past it",
)
_NO_DERIVATIVE = {
    **dict.fromkeys(("Round", "Rint", "Floor", "Ceil", "Sign", "FloorDiv"), _FLAT_STEP),
    **dict.fromkeys(("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"), _DECISION),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopKV2", "LowerBound", "UpperBound"), _PLACE),
    **dict.fromkeys(("Multinomial", "RandomPoissonV2", "StatelessRandomBinomial"), _DRAW),
    **dict.fromkeys(("HistogramFixedWidth", "Bincount", "DenseBincount"), _COUNT),
}
LOSING = {*_NO_DERIVATIVE, "StopGradient"}
_LIMIT = ("every value is beyond the limit, where the slope is 0", "Move the limit, or clip only what is shown")
_RELU = (
    "every input of this ReLU is negative, where its slope is 0",
    "Use tf.nn.leaky_relu, a smaller learning rate, or no ReLU at the output",
)
_FLAT_END = ("its inputs are so large that it is flat there", "Use a loss with from_logits=True, or scale its inputs")
_MINIMUM = (
    "its input is 0, where its slope is 0",
    "If this is the loss at its minimum, 0 is right; if not, print its input",
)
_ZERO = {
    **dict.fromkeys(("Relu", "Relu6"), _RELU),
    **dict.fromkeys(("Minimum", "Maximum", "ClipByValue"), _LIMIT),
    **dict.fromkeys(("Sigmoid", "Tanh"), _FLAT_END),
    **dict.fromkeys(("Square", "Pow", "Abs"), _MINIMUM),
    "Softmax": (
        "what it gives adds up to 1 (over one unit it always is 1), and a saturated one does not change",
        "Use tf.sigmoid for one unit, and a loss with from_logits=True",
    ),
    "Complex": (
        "the target is complex, and only its real part is differentiated",
        "Return tf.math.real, tf.math.imag or tf.abs of it",
    ),
    "Cast": ("what flows back is imaginary, and the source is real", "Let the target be real: tf.math.real or tf.abs"),
    **dict.fromkeys(("Mul", "MatMul"), ("the other factor is 0", "See why it is: a mask, a weight, an initial value")),
    "SelectV2": ("no element of this branch is taken", "Print the condition, and see why no element takes this branch"),
}
_NAN = {
    "Log": ("1/x, infinite at 0", "tf.math.log(x + 1e-7), or a loss with from_logits=True"),
    "Sqrt": ("1/(2 sqrt(x)), infinite at 0", "tf.sqrt(x + 1e-12)"),
    "Pow": ("a x^(a-1), infinite at 0 if a < 1", "tf.pow(tf.maximum(x, 1e-6), a)"),
    "RealDiv": ("1/b for a and -a/b^2 for b, infinite where b is 0", "tf.math.divide_no_nan(a, b), or b + 1e-7"),
    "Exp": ("e^x, which overflows beyond 88 in float32", "tf.reduce_logsumexp or tf.nn.softmax, which do not overflow"),
}  # fmt: skip


_PRINT = "Print what {name} goes into, step by step"
_CANCELS = (
    "{name} arrives along several ways, whose gradients add up to exactly 0",
    "Look for a difference of equal things (x - x, a mean taken from itself, a softmax that sums to 1): the target "
    "does not change with it",
)
_WORDS = {
    "stateful": (
        "{written} writes the value into a variable or a table, and what is read there later has no way back: a tape "
        "follows values, not what is written into a state",
        "Go on with the value made from {name} as a tensor, and assign it after the gradient is taken",
    ),
    "rewrapped": (
        "{op} makes a new object out of the number that {name} has just now, and no way leads back from it",
        "Use {name} itself, or tf.identity({name}) for a copy that keeps the gradient",
    ),
    "custom_gradient": (
        "a function under tf.custom_gradient says itself what flows back, and says None or 0 here",
        "Let its inner function return a gradient for every input: dy * derivative, or dy alone to pass it straight on",
    ),
    "wrong_tensor": (
        "fn uses {other}, which holds numbers of {name}, but is another object: {piece} that the tape does not know",
        "Use {name} itself inside fn, or ask for the gradient of what fn uses",
    ),
    "outside_tape": (
        "{made} before fn ran, when no tape was recording. Ready-made tensors that fn reads: {ready}",
        "Move the line that computes {what} into fn (for a layer: out of __init__ or build, into call)",
    ),
    "replaced_by_tensor": (
        "{other} in fn is a tensor that took the place of the variable {name}",
        "Update the variable in place, {name}.assign(...) or {name}.assign_sub(...): {other} = {other} - step makes a "
        "tensor",
    ),
}


def words(cause: str, name: str, *, op: str | None = None, kind: str = "", **facts: Any) -> tuple[str, str]:
    """``(why, advice)``, each without its full stop."""
    op = op or "this operation"
    why, advice = _WORDS.get(cause) or _PICKED[cause](op=op, kind=kind, **facts)
    called = re.search(
        r"[\w.]+(?:\[[^\]]*\]\.)?(?:assign\w*|update_state|set_weights|insert)\(", facts.get("code") or ""
    )
    other = facts.get("other", "")
    told = {
        "name": name, "op": op, "owner": op.rpartition(".")[0], "written": called[0] + "...)" if called else op,
        "made": f"{other} was computed from {name}" if other else "what fn reads was computed", "what": other or "it",
        **facts, "ready": some(facts.get("ready", [])),
    }  # fmt: skip
    return why.format(**told), advice.format(**told)


def text(findings: Sequence) -> str:
    """The whole explanation, to be read: what is fine in one line, then a paragraph for each thing that is not."""
    fine = [f for f in findings if f.status == "ok"]
    groups: dict = {}
    for finding in findings:
        if finding.status != "ok":
            groups.setdefault((finding.status, finding.cause, finding.op, finding.file, finding.line), []).append(
                finding
            )
    parts = [_fine(fine, len(findings))] if fine else []
    return "\n\n".join([*parts, *(_paragraph(group) for group in groups.values())])


def _fine(fine: Sequence, total: int) -> str:
    notes = "".join(f"\n    ({finding.advice}.)" for finding in fine[:3] if finding.advice)
    return f"Fine ({len(fine)} of {total}): {some([f.called for f in fine])}.{notes}"


def _paragraph(group: Sequence) -> str:
    first = group[0]
    lines = [f"{some([f.called for f in group])}: the gradient is {_CAME_OUT[first.status]} ({first.cause})."]
    if first.file:
        lines.append(f"    {short(first.file)}, line {first.line}" + (f":  {first.code}" if first.code else ""))
    if first.path:
        lines.append(f"    {first.path}")
    for label, sentence in (("Why", first.why), ("Instead", first.advice)):
        if sentence:
            lines += textwrap.wrap(f"{label}: {sentence}.", 110, initial_indent="    ", subsequent_indent="        ")
    return "\n".join(lines)


def _integer_dtype(*, cast: bool = False, code: str | None = None, **facts: Any) -> tuple[str, str]:
    if not cast:
        return (
            "{name} is {dtype}, and only floating-point numbers have a derivative",
            "Make {name} a float where it is made, 3.0 and not 3, or dtype=tf.float32. If it is an index, a count or a "
            "text, it has no gradient in any case: leave it out of vars",
        )
    why = "here the number becomes {dtype}, which jumps from one value to the next and has no derivative"
    if "cast" not in (code or "cast").lower():
        return why, "The call takes whole numbers (an index, a label): leave {name} out of vars, or do without the call"
    return why, "Leave out the cast; if a decision is wanted, tf.sigmoid((x - threshold) / width) makes it smoothly"


def _non_differentiable_op(*, kind: str, **facts: Any) -> tuple[str, str]:
    return _NO_DERIVATIVE.get(kind, _UNKNOWN)


def _stop_gradient(*, library: str | None = None, **facts: Any) -> tuple[str, str]:
    by = "{library} calls tf.stop_gradient inside" if library else "tf.stop_gradient hands the value on"
    return (
        by + ": the number passes, the gradient is held back on purpose",
        "Take tf.stop_gradient away if {name} is to be trained through here; if it is frozen on purpose, leave {name} "
        "out of vars",
    )


def _left_tensorflow(*, op: str, python_function: bool = False, **facts: Any) -> tuple[str, str]:
    if python_function:
        return (
            "{op} runs Python and NumPy, in which TensorFlow sees numbers come out, but not how they were made",
            "Write its body with tf.* operations and call it directly (tf.py_function does differentiate those)",
        )
    return (
        "{op} takes the number out of TensorFlow, as a NumPy array or a Python number, and a tape records only "
        "TensorFlow's operations: the way from {name} ends here",
        _stay(op),
    )


def _stay(op: str) -> str:
    owner, _, call = op.rpartition(".")
    if call.startswith(("predict", "evaluate")):
        return "Call the model itself: {owner}(x) gives a tensor that keeps the gradient"
    if call == "get_weights":
        return "Read the variables themselves: {owner}.trainable_variables (or .kernel), not their copies"
    if owner.split(".")[0] in ("np", "numpy", "math"):
        places = {"tf": tf, "tf.math": tf.math, "tf.linalg": tf.linalg}
        found = [f"{at}.{n}" for n in (call, f"reduce_{call}") for at, where in places.items() if hasattr(where, n)]
        return "Write " + (found[0] if found else "tf.* operations") + " in the place of {op}"
    return "Keep the tensor as it is and go on with tf.* operations; .numpy() and float() are for printing"


def _zero(*, kind: str, cancels: bool = False, **facts: Any) -> tuple[str, str]:
    if not kind:
        return "the gradient arrives, and every element of it is 0", _PRINT
    if cancels:
        return _CANCELS
    why, advice = _ZERO.get(kind, ("it does not change with its input here", "Print what goes into {op}"))
    return "the signal arrives at {op} and ends there: " + why, advice


def _nan(*, op: str, kind: str, masked: bool = False, forward: bool = False, given: bool = False, **facts: Any):
    if not kind:
        return "some element of the gradient is NaN or inf", _PRINT
    if given:
        return "a value that comes in is NaN or inf already", "Look at the data, and at {name} itself, before fn"
    slope, safe = _NAN.get(kind, ("too large or undefined here", "scale what goes into {op}, or use something else"))
    inside = "{op}" if kind.lower() in op.lower() else kind + " in {op}"
    if masked:
        return (
            f"the slope of {inside} is {slope}. tf.where takes the other branch, but multiplies this one's gradient by "
            "0, and 0 times infinity is NaN",
            "Choose a safe input first, then the result: safe = tf.where(ok, x, 1.0), and tf.where(ok, "
            f"{_SAFE.get(kind, 'f(safe)')}, other)",
        )
    if forward:
        return (
            f"the value itself is NaN or inf from {inside} on, and the derivative with it",
            f"Print what goes into {{op}}, and keep it in range: {safe}",
        )
    return (
        f"the slope of {inside} is {slope}",
        f"Write {safe}" if inside == "{op}" else f"Write {{op}} out, with {safe} in it",
    )


def _not_used(*, read: bool = False, branch: bool = False, ready: Sequence[str] = (), **facts: Any) -> tuple[str, str]:
    why = "fn does not read the value of {name}"
    if branch:
        why = "fn reads {name} only in the branch that it does not take with these numbers"
    elif read:
        why = "fn reads {name}, but only its shape, or for something that the target does not use"
    advice = "If {name} is to matter, use it inside fn; if not, leave it out of vars, or ask for unconnected='zero'"
    if ready:
        why += ". It does read {ready}, made before fn ran"
    if ready and not read:
        advice += ". If what fn reads was made from {name} (a copy, an update, an earlier result), make it inside fn"
    return why, advice


_PICKED: dict[str, Callable] = {  # by what else is known
    "integer_dtype": _integer_dtype,
    "left_tensorflow": _left_tensorflow,
    "nan": _nan,
    "non_differentiable_op": _non_differentiable_op,
    "not_used": _not_used,
    "stop_gradient": _stop_gradient,
    "zero": _zero,
}
