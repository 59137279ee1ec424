"""The sentences of `explain`: a table of rows by cause, detail and operation, of which the first that fits is used."""

from typing import Any

import tensorflow as tf

from tapekit._sources import is_float
from tapekit.graphs.calls import called_by
from tapekit.graphs.flow import own_gradient
from tapekit.graphs.recording import PYTHON

STEP = "Round Rint Floor Ceil Sign FloorDiv TruncateDiv QuantizeV2"
DECISION = "Greater GreaterEqual Less LessEqual Equal NotEqual ApproximateEqual LogicalNot LogicalAnd LogicalOr"
PLACE = "ArgMax ArgMin TopKV2 LowerBound UpperBound Where Unique UniqueV2 NonMaxSuppressionV3 NonMaxSuppressionV5"
CLASSES = "Multinomial StatelessMultinomial"
COUNTS = "RandomPoissonV2 StatelessRandomPoisson StatelessRandomBinomial"
DRAWS = "ParameterizedTruncatedNormal StatelessParameterizedTruncatedNormal"
HISTOGRAM = "HistogramFixedWidth Bincount DenseBincount RaggedBincount Bucketize"
TEXT = "AsString StringFormat StringToNumber StringLength StringJoin EncodeJpeg EncodePng DecodeRaw Bitcast"
RELU = "Relu Relu6"
LIMIT = "Minimum Maximum ClipByValue"
QUANTISED = (
    "FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2 "
    "QuantizeAndDequantizeV3 QuantizeAndDequantizeV4"
)
SATURATED = "Tanh Erf Erfc Softsign Atan Elu Selu Exp Softplus"
STATIONARY = "Square Pow Abs Cos Sin Cosh SquaredDifference ComplexAbs Prod"
PRODUCT = "Mul MatMul BatchMatMulV2 Einsum Conv2D DepthwiseConv2dNative Conv3D RealDiv SparseTensorDenseMatMul"
SELECT = "Select SelectV2"
SPECTRUM = "Svd SelfAdjointEigV2 Eig"
POSITIVE = "Cholesky LogMatrixDeterminant"
INVERSE = "MatrixInverse MatrixSolve MatrixTriangularSolve MatrixDeterminant MatrixSolveLs"
FLATTENING = {*f"{RELU} {LIMIT} {SATURATED} {QUANTISED} {SELECT} {DECISION} {STEP} Sigmoid Softmax".split()}

_LEAVE_OUT = "leave {name} out of vars, or ask for unconnected='zero'"
_TAKES_NUMBER = (
    "{op} takes the value out of TensorFlow, as a NumPy array or a Python number. A tape records only operations of "
    "TensorFlow: the gradient to {name} ends here"
)
_STATE = "the {what} of {inside} is infinite or undefined at this input"
_SEPARATE = (
    "Make the values distinct, by adding a small diagonal such as tf.linalg.diag(1e-3 * tf.range(n)), or use a "
    "function of all of them: tf.linalg.trace, tf.linalg.logdet, tf.norm"
)

# cause, detail ("" for any), family of operations ("" for any), why, advice
TABLE = [
    ("others", "", "", "Also read, but not in vars: {other}", ""),
    ("square", "", "", "{op}{line} makes [{other}, {other}] of [{other}] and [{other}, 1]: reshape one of them, unless "
     "all pairs are meant", ""),
    ("not_used", "branch", "", "fn reads {name} only in the branch that it does not take with these numbers",
     "Give numbers that take the branch, or " + _LEAVE_OUT),
    ("not_used", "shape", "", "fn reads only the shape of {name} here, and not its values",
     "Use the values of {name} in the target; if only the shape matters, " + _LEAVE_OUT),
    ("not_used", "losses", "", "fn reads {name} for a loss that {other} keeps (add_loss), and does not return it",
     "Add it to what fn returns: loss + sum({other}.losses)"),
    ("not_used", "unused", "", "fn reads {name} here, but the target does not depend on the result",
     "Let the value that fn returns depend on the result; if that is not wanted, " + _LEAVE_OUT),
    ("not_used", "inner", "", "{op} inside fn returns None: its target does not depend on its source (the derivative "
     "of something linear is a constant)", "Ask for zeros there: {op}(..., unconnected_gradients='zero')"),
    ("not_watched", "", "", "{op} inside fn returns None: its tape does not watch its source",
     "Call tape.watch(...) on the source inside the with block of that tape, before it is used"),
    ("outside_tape", "inner", "", "{op} inside fn returns None: its tape did not record how its target was computed",
     "Compute the target of {op} inside the with block of that tape, after tape.watch"),
    ("not_used", "", "", "fn does not read {name}{ready}", "Use {name} inside fn{move}; if it is not to matter, "
     + _LEAVE_OUT),
    ("outside_tape", "", "", "fn does not read {name}{ready}", "Move the line that computes {other} from {name} into "
     "fn (for a layer: out of __init__ or build, into call)"),
    ("wrong_tensor", "", "", "fn reads none of the sources, but {other}{ready}",
     "Ask for the gradient with respect to the variables that fn reads, or use {name} inside fn{move}"),
    ("replaced_by_tensor", "", "", "a name of a variable was bound again, to a tensor ({other}): fn reads the tensor, "
     "and not {name}{ready}", "Keep the variable and update it in place, w.assign(...) or w.assign_sub(...): "
     "w = w - step makes a tensor"),
    ("integer_dtype", "source", "", "{name} is {dtype}, and only floating-point numbers have a derivative",
     "Make {name} a float where it is made, 3.0 and not 3, or dtype=tf.float32. If it is an index, a count or a "
     "text, it has no gradient in any case: leave it out of vars"),
    ("integer_dtype", "call", "", "the value becomes {dtype} inside this call, and integers have no derivative",
     "The call takes whole numbers (an index, a label): leave {name} out of vars, or do without the call"),
    ("integer_dtype", "", "", "here the value becomes {dtype}, which jumps from one number to the next and has no "
     "derivative", "Leave out the cast, and divide with / and not //; if a decision is wanted, "
     "tf.sigmoid((x - threshold) / width) is smooth"),
    ("left_tensorflow", "python", "", "{op} runs Python and NumPy code, whose derivative TensorFlow does not know",
     "Write its body with tf.* operations and call it directly (tf.py_function does differentiate those)"),
    ("left_tensorflow", "predict", "", _TAKES_NUMBER,
     "Call the model itself: {owner}(x) returns a tensor that keeps the gradient"),
    ("left_tensorflow", "weights", "", _TAKES_NUMBER,
     "Read the variables themselves, {owner}.trainable_variables (or .kernel), and not copies of their values"),
    ("left_tensorflow", "numpy", "", _TAKES_NUMBER, "Write {written} in the place of {op}"),
    ("left_tensorflow", "decides", "", "{op} takes the value out of TensorFlow, and the target is not computed from "
     "it. At most, it decides which way fn goes", "Let the target depend on {name} itself, or " + _LEAVE_OUT),
    ("left_tensorflow", "unknown", "", "fn leaves TensorFlow at {op}. Whether {name} takes that way cannot be "
     "measured", "Keep tensors as they are, with tf.* operations, and let explain look at fn again"),
    ("left_tensorflow", "", "", _TAKES_NUMBER,
     "Keep the tensor as it is and go on with tf.* operations; .numpy() and float() are for printing"),
    ("rewrapped", "", "", "{op} makes a new object out of the value that {name} has now. The new object does not "
     "depend on {name}", "Use {name} itself, or tf.identity({name}) for a copy that keeps the gradient"),
    ("stateful", "", "", "{op} writes the value into a variable or a table. A tape follows values, not what is "
     "written into a state: what is read there later has no gradient to {name}",
     "Go on with the value made from {name} as a tensor, and assign it after the gradient is taken"),
    ("stop_gradient", "library", "", "{other} calls tf.stop_gradient inside: no gradient passes",
     "Use {name} where {other} lets the gradient pass; if this is wanted, leave {name} out of vars"),
    ("stop_gradient", "", "", "tf.stop_gradient returns its input, and lets no gradient pass",
     "Take tf.stop_gradient away if {name} is to be trained through here; if not, leave {name} out of vars"),
    ("custom_gradient", "", "", "a function under tf.custom_gradient returns None or 0 as its gradient here",
     "Let its inner function return a gradient for every input, dy * derivative, or dy to pass it on"),
    ("non_differentiable_op", "", STEP, "{op} is constant between its jumps, so that its derivative is 0 or missing",
     "If the step is wanted, let the gradient pass by it, x + tf.stop_gradient(step(x) - x); if not, leave it out of "
     "the loss"),
    ("non_differentiable_op", "", DECISION, "{op} returns yes or no, which has no derivative",
     "Make it smooth, tf.sigmoid((x - threshold) / width), and keep the comparison for the metric (for a random yes or "
     "no of probability p: tf.sigmoid((tf.math.log(p / (1 - p)) + logistic_noise) / width))"),
    ("non_differentiable_op", "", PLACE, "{op} returns positions, which have no derivative",
     "Use values, not positions: tf.nn.softmax(scores), a cross-entropy loss on the scores, tf.gather(x, positions), "
     "or the sorted values of tf.sort and tf.nn.top_k"),
    ("non_differentiable_op", "", CLASSES, "{op} draws a class at random, and a class has no derivative",
     "Use the log-probability of the class times the reward, with tf.nn.log_softmax(logits), or draw softly (Gumbel): "
     "tf.nn.softmax(logits - tf.math.log(-tf.math.log(uniform)))"),
    ("non_differentiable_op", "", COUNTS, "{op} draws a count at random, and a count has no derivative",
     "Use the expected value in the loss, or the log-probability of the count times the reward"),
    ("non_differentiable_op", "", DRAWS, "{op} draws at random, and TensorFlow does not know how the draw would change "
     "with {name}", "Write the draw as a function of its parameters: mean + std * tf.random.normal(shape)"),
    ("non_differentiable_op", "", HISTOGRAM, "{op} counts, and a count has no derivative",
     "Count softly: tf.reduce_sum(tf.nn.softmax(-((x[:, None] - centres) ** 2) / width), axis=0)"),
    ("non_differentiable_op", "", TEXT, "{op} makes a text, or bytes, which have no derivative",
     "Compute with the numbers themselves, and make the text outside of the loss"),
    ("non_differentiable_op", "", "", "TensorFlow has no derivative of {op} with respect to {name}",
     "Write {op} with other tf.* operations, or define its derivative with tf.custom_gradient"),
    ("zero", "unseen", "", "at which operation it becomes 0 could not be measured",
     "Ask for the gradient with respect to a tensor in the middle of fn, to see how far it is not 0"),
    ("zero", "cancels", "", "{name} reaches the target along several ways, whose gradients add up to exactly 0",
     "Look for a difference of equal things (x - x, a mean taken from itself, a softmax that sums to 1): the target "
     "does not change with it"),
    ("zero", "second", RELU + " LeakyRelu Abs Maximum Minimum", "the second derivative of {op} is 0: it is straight on "
     "both sides of 0", "Use tf.tanh, tf.nn.softplus or tf.nn.swish in its place"),
    ("zero", "second", "", "the second derivative of {op} is 0 at this input", "Use an operation that is curved here"),
    ("zero", "", RELU, "every input of this ReLU is negative, where its slope is 0",
     "Use tf.nn.leaky_relu, a smaller learning rate, or no ReLU at the output"),
    ("zero", "", LIMIT, "every value is beyond the limit of {op}, where the slope is 0",
     "Move the limit, or clip only what is shown"),
    ("zero", "", QUANTISED, "every value is outside the range of {op}, where the slope is 0",
     "Widen the range (min, max) so that it covers the values, or scale the values into it"),
    ("zero", "", "Sigmoid", "the inputs of {op} are so large that its slope is 0",
     "Give the logits, which are the inputs of the sigmoid, to a loss with from_logits=True; without such a loss, "
     "scale them down"),
    ("zero", "", SATURATED, "the inputs of {op} are so large that its slope is 0", "Scale the inputs of {op} down"),
    ("zero", "", "Softmax LogSoftmax", "the outputs of {op} add up to 1 (over one unit each is 1), and do not "
     "change here", "Use tf.sigmoid for one unit, and give the logits, the inputs of the softmax, to a loss with "
     "from_logits=True"),
    ("zero", "", SPECTRUM, "{op} met equal values, at which its derivative is not defined: TensorFlow puts 0 there",
     _SEPARATE),
    ("zero", "", "Complex Cast", "of the source and the target one is complex and one is real: what is imaginary has "
     "no gradient", "Return tf.math.real, tf.math.imag or tf.abs of the target"),
    ("zero", "", STATIONARY, "the slope of {op} is 0 at its input",
     "If this is the loss at its minimum, 0 is right; if not, start from another value"),
    ("zero", "", PRODUCT, "the other factor of {op} is 0{factor}",
     "Make the factor another number than 0: a mask, a weight, an initial value (small random numbers, not zeros)"),
    ("zero", "", SELECT, "no element of this branch of {op} is taken",
     "Print the condition, and see why no element takes this branch"),
    ("zero", "", "", "a gradient arrives at {op}, and the one that it sends back to {name} is 0 at this input",
     "Start from another value, or use an operation whose slope is not 0 there"),
    ("nan", "unseen", "", "at which operation it becomes NaN or infinite could not be measured",
     "Call tf.debugging.enable_check_numerics() once, and then fn: it stops at the operation"),
    ("nan", "body", "", "a value or a slope becomes NaN or infinite inside {op}",
     "Call its body once outside of it, and let explain look at that call"),
    ("nan", "given", "", "a value that comes in is NaN or infinite already",
     "Look at the data, and at {name} itself, before fn"),
    ("nan", "constant", "", "the constant that is made here is NaN or infinite, and reaches the gradient",
     "Write a large finite number, -1e9, in its place, or apply tf.where after the operation that does not take it"),
    ("nan", "masked", "", "the slope of {inside} is infinite or undefined here. tf.where takes the other branch, but "
     "multiplies the gradient of this one by 0, and 0 times infinity is NaN",
     "Choose a safe input first, then the result: safe = tf.where(ok, x, {inner}), and tf.where(ok, f(safe), other) "
     "where f is {op}"),
    ("nan", "", "IdentityN", "a function under tf.custom_gradient returns a gradient that is infinite or NaN here",
     "Let its inner function return a finite gradient: print what it returns at this input"),
    ("nan", "overflow", "Exp Expm1 Cosh Sinh", "the result of {inside} is larger than the largest {dtype}, {limit}",
     "Use tf.reduce_logsumexp, tf.nn.softmax or tf.nn.log_softmax, which do not overflow; or scale the input down, or "
     "{wider}"),
    ("nan", "overflow", "", "a number made by {inside} is larger than the largest {dtype}, {limit}",
     "Scale the numbers down, or {wider}"),
    ("nan", "", "Log", _STATE, "Write tf.math.log(tf.maximum(x, 0.0) + 1e-7); behind a softmax or a sigmoid, give the "
     "logits to tf.nn.log_softmax, tf.math.log_sigmoid or a loss with from_logits=True"),
    ("nan", "", "Sqrt", _STATE, "Write tf.sqrt(tf.maximum(x, 0.0) + 1e-12); for a norm, "
     "tf.sqrt(tf.reduce_sum(x**2) + 1e-12)"),
    ("nan", "", "Rsqrt", _STATE, "Write tf.math.rsqrt(tf.maximum(x, 0.0) + 1e-12)"),
    ("nan", "", "Pow", _STATE, "Write tf.pow(tf.maximum(x, 1e-6), a)"),
    ("nan", "", "RealDiv Reciprocal", _STATE, "Write tf.math.divide_no_nan(a, b), or a / (b + 1e-7)"),
    ("nan", "", "Acos Asin Atanh Erfinv", _STATE, "Write its input as tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6)"),
    ("nan", "", "Acosh", _STATE, "Write its input as tf.maximum(x, 1 + 1e-6)"),
    ("nan", "", "Ndtri", _STATE, "Write its input as tf.clip_by_value(x, 1e-6, 1 - 1e-6)"),
    ("nan", "", "Atan2 Angle", _STATE, "Move the point away from 0: tf.atan2(y, x + 1e-7), tf.math.angle(z + 1e-7)"),
    ("nan", "", "ComplexAbs", _STATE, "Write tf.sqrt(tf.math.real(z) ** 2 + tf.math.imag(z) ** 2 + 1e-12)"),
    ("nan", "", POSITIVE, "the matrix that {inside} takes is not positive definite", "Add a small diagonal to it: "
     "a + 1e-3 * tf.eye(n), larger than the rounding of its elements"),
    ("nan", "", INVERSE, "the matrix that {inside} takes is singular, or nearly so", "Add a small diagonal to it: "
     "a + 1e-3 * tf.eye(n), or use tf.linalg.pinv or tf.linalg.lstsq with l2_regularizer"),
    ("nan", "", SPECTRUM, "{inside} met equal values, at which its derivative is not defined", _SEPARATE),
    ("nan", "", "Mean SegmentMean", "{inside} takes the mean of no elements, 0 / 0",
     "Write tf.math.divide_no_nan(tf.reduce_sum(x), count)"),
    ("nan", "", "", _STATE, "Write {op} with inputs at which it is smooth"),
]  # fmt: skip

_LIMITS = {"float16": "65504", "bfloat16": "3.4e38", "float32": "3.4e38", "float64": "1.8e308"}


def cause_of(op: tf.Operation) -> tuple[str, str, str]:
    """Return ``(cause, detail, dtype)`` for an operation that was seen to lose the gradient."""
    library = "library" if called_by(op) else ""
    if own_gradient(op):
        return "custom_gradient", library, ""
    if op.type in PYTHON:
        return "left_tensorflow", "python", ""
    if op.type == "StopGradient":
        return "stop_gradient", library, ""
    if any(tensor.dtype == tf.resource for tensor in op.inputs) and op.type != "ReadVariableOp":
        return "stateful", library, ""
    if op.type == "Cast" or not any(is_float(tensor) for tensor in op.inputs):
        kinds = [tensor.dtype.name for tensor in (*op.outputs, *op.inputs) if not is_float(tensor)]
        return "integer_dtype", "" if called_by(op) == "cast" else "call", (kinds or ["integer"])[0]
    return "non_differentiable_op", "", ""


def sentences(fact: Any, name: str) -> tuple[str, str]:
    """Return ``(why, advice)`` for the gradient of the source `name`, each without its full stop."""
    why, advice = next(
        row[3:]
        for row in TABLE
        if row[0] == fact.cause and row[1] in ("", fact.detail) and (not row[2] or fact.kind in row[2].split())
    )
    op = fact.op or "this operation"
    told = {
        "name": name,
        "op": op,
        "owner": op.rpartition(".")[0],
        "other": fact.other or "that tensor",
        "factor": f", {fact.other}" if fact.other else "",
        "inside": op if fact.kind.lower() in op.lower() else f"{fact.kind} in {op}",
        "what": {"value": "value", "second": "second derivative"}.get(fact.detail, "slope"),
        "inner": "2.0" if fact.kind == "Acosh" else "0.5",
        "line": f" on line {fact.at.line}" if fact.at else "",
        "written": in_tensorflow(op),
        "dtype": fact.dtype,
        "limit": _LIMITS.get(fact.dtype, ""),
        "wider": f"make {name} a float32" if "16" in fact.dtype else "compute in float64",
        "ready": f". It reads tensors that were made before it ran: {'; '.join(fact.ready)}" if fact.ready else "",
        "move": ". If one of these was computed from it, move that line into fn" if fact.ready else "",
    }
    return why.format(**told), advice.format(**told)


def note(fact: Any, name: str = "the target") -> str:
    """Return a sentence on a fact that may be intended, or that concerns more than one source."""
    line = f" on line {fact.at.line}" if fact.at else ""
    why, advice = sentences(fact, name)
    if fact.cause in ("others", "square"):
        return why
    if fact.cause == "nan":
        return f"the value of the target is not finite, although its gradients are: {why}{line}. {advice}"
    return f"one of the ways from {name} to the target is cut: no gradient passes {fact.op}{line}"


def watching(name: str, source: Any, takes_vars: bool) -> str:
    """Return what a bare tape needs to be told about a source that tapekit watches, or an empty string."""
    if takes_vars or getattr(source, "trainable", False):
        return ""
    if isinstance(source, tf.Variable):
        return f"{name} is not trainable: tapekit watches it, a bare tape needs tape.watch({name})"
    return f"{name} is a tensor: tapekit watches it, a bare tape needs tape.watch({name}) before it is used"


def leaving(op: str) -> str:
    """Return the detail of a call that takes a value out of TensorFlow."""
    call = op.rpartition(".")[2]
    if call.startswith(("predict", "evaluate")):
        return "predict"
    if call == "get_weights":
        return "weights"
    return "numpy" if op.split(".")[0] in ("np", "numpy", "math") and in_tensorflow(op) else ""


def in_tensorflow(call: str) -> str:
    """Return the function of TensorFlow that does what a function of NumPy or `math` does, or an empty string."""
    name = call.rpartition(".")[2]
    places = {"tf": tf, "tf.math": tf.math, "tf.linalg": tf.linalg}
    names = (name, f"reduce_{name}")
    return next((f"{at}.{each}" for each in names for at, where in places.items() if hasattr(where, each)), "")
