"""The sentences of `explain`: a table of rows by cause, detail and operation. The first row that fits is used."""

import re
from typing import Any, NamedTuple

import tensorflow as tf

PYTHON = {"PyFunc": "tf.numpy_function", "PyFuncStateless": "tf.numpy_function", "EagerPyFunc": "tf.py_function"}
FLAT = {"Sign"}  # step functions whose registered gradient is 0, not None

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
LOSING = {kind for kinds in (STEP, DECISION, PLACE, CLASSES, COUNTS, DRAWS, HISTOGRAM) for kind in kinds.split()} | {
    "StopGradient"
}


UNWATCHED = (
    "{0} is a tensor: tapekit watches it, a bare tape needs tape.watch({0}) before it is used",
    "{0} is not trainable: tapekit watches it, a bare tape needs tape.watch({0})",
)


class Row(NamedTuple):
    """The sentences for a cause, for one detail of it ("" for any) and one family of operations ("" for any)."""

    cause: str
    detail: str
    kinds: str
    why: str
    advice: str


_LEAVE_OUT = "leave {name} out of vars, or ask for unconnected='zero'"
_STRAIGHT = "x + tf.stop_gradient(step(x) - x)"
_TAKES_NUMBER = (
    "{op} takes the value out of TensorFlow, as a NumPy array or a Python number. A tape records only operations of "
    "TensorFlow: the gradient to {name} ends here"
)
_UNDEFINED = "the value itself is NaN or infinite from {inside} on, and the derivative with it"
_SLOPE = "the slope of {inside} is infinite or undefined at this input"

TABLE = [
    # ------------------------------------------------------------------------------------------ nothing is read
    Row("not_used", "branch", "", "fn reads {name} only in the branch that it does not take with these numbers",
        "Give numbers that take the branch, or " + _LEAVE_OUT),
    Row("not_used", "shape", "", "fn reads only the shape of {name} here, and not its values",
        "Use the values of {name} in the target; if only the shape matters, " + _LEAVE_OUT),
    Row("not_used", "unused", "", "fn reads {name} here, but the target does not depend on the result",
        "Let the value that fn returns depend on the result; if that is not wanted, " + _LEAVE_OUT),
    Row("not_used", "", "", "fn does not read {name}{instead}",
        "Use {name} inside fn; if it is not to matter, " + _LEAVE_OUT),
    Row("outside_tape", "", "", "fn does not read {name}. It reads tensors that were made before it ran, when no tape "
        "was recording: {ready}", "Move the line that computes {what} from {name} into fn (for a layer: out of "
        "__init__ or build, into call)"),
    Row("wrong_tensor", "", "", "fn does not read {name}. It reads {what}, another object of the same shape",
        "Use {name} itself inside fn, or ask for the gradient with respect to what fn uses"),
    Row("replaced_by_tensor", "", "", "the name {other} was bound again, to a tensor: fn reads that tensor, "
        "and not the variable {name}", "Keep the variable and update it in place, {other}.assign(...) or "
        "{other}.assign_sub(...): {other} = {other} - step makes a tensor"),
    # ------------------------------------------------------------------------------------------ integers
    Row("integer_dtype", "source", "", "{name} is {dtype}, and only floating-point numbers have a derivative",
        "Make {name} a float where it is made, 3.0 and not 3, or dtype=tf.float32. If it is an index, a count or a "
        "text, it has no gradient in any case: leave it out of vars"),
    Row("integer_dtype", "call", "", "the value becomes {dtype} inside this call, and integers have no derivative",
        "The call takes whole numbers (an index, a label): leave {name} out of vars, or do without the call"),
    Row("integer_dtype", "", "", "here the value becomes {dtype}, which jumps from one number to the next and has no "
        "derivative", "Leave out the cast; if a decision is wanted, tf.sigmoid((x - threshold) / width) is smooth"),
    # ------------------------------------------------------------------------------------------ out of TensorFlow
    Row("left_tensorflow", "python", "", "{op} runs Python and NumPy code, whose derivative TensorFlow does not know",
        "Write its body with tf.* operations and call it directly (tf.py_function does differentiate those)"),
    Row("left_tensorflow", "predict", "", _TAKES_NUMBER,
        "Call the model itself: {owner}(x) returns a tensor that keeps the gradient"),
    Row("left_tensorflow", "weights", "", _TAKES_NUMBER,
        "Read the variables themselves, {owner}.trainable_variables (or .kernel), and not copies of their values"),
    Row("left_tensorflow", "numpy", "", _TAKES_NUMBER, "Write {written} in the place of {op}"),
    Row("left_tensorflow", "", "", _TAKES_NUMBER,
        "Keep the tensor as it is and go on with tf.* operations; .numpy() and float() are for printing"),
    Row("rewrapped", "", "", "{op} makes a new object out of the value that {name} has now. The new object does not "
        "depend on {name}", "Use {name} itself, or tf.identity({name}) for a copy that keeps the gradient"),
    Row("stateful", "", "", "{written} writes the value into a variable or a table. A tape follows values, not what is "
        "written into a state: what is read there later has no gradient to {name}",
        "Go on with the value made from {name} as a tensor, and assign it after the gradient is taken"),
    # ------------------------------------------------------------------------------------------ stopped on purpose
    Row("stop_gradient", "library", "", "{other} calls tf.stop_gradient inside: no gradient passes",
        "Use {name} where {other} lets the gradient pass; if this is wanted, leave {name} out of vars"),
    Row("stop_gradient", "", "", "tf.stop_gradient returns its input, and lets no gradient pass",
        "Take tf.stop_gradient away if {name} is to be trained through here; if not, leave {name} out of vars"),
    Row("custom_gradient", "", "", "a function under tf.custom_gradient defines what flows back, and returns None or "
        "0 here", "Let its inner function return a gradient for every input, dy * derivative, or dy unchanged"),
    # ------------------------------------------------------------------------------------------ no derivative
    Row("non_differentiable_op", "", STEP, "{op} is constant between its jumps, so that its derivative is 0 or missing",
        f"If the step is wanted, let the gradient pass by it, {_STRAIGHT}; if not, leave it out of the loss"),
    Row("non_differentiable_op", "", DECISION, "{op} returns yes or no, which has no derivative",
        "Make it smooth, tf.sigmoid((x - threshold) / width), and keep the comparison for the metric"),
    Row("non_differentiable_op", "", PLACE, "{op} returns a position, which has no derivative",
        "Train on the scores themselves: tf.nn.softmax(scores) in its place, or a cross-entropy loss on them"),
    Row("non_differentiable_op", "", CLASSES, "{op} draws a class at random, and a class has no derivative",
        "Use the log-probability of the class times the reward, tf.nn.log_softmax(logits), or draw softly (Gumbel): "
        "tf.nn.softmax(logits - tf.math.log(-tf.math.log(uniform)))"),
    Row("non_differentiable_op", "", COUNTS, "{op} draws a count at random, and TensorFlow does not know how it would "
        "change with {name}", "Use its expected value in the loss, or its log-probability times the reward"),
    Row("non_differentiable_op", "", DRAWS, "{op} draws at random, and TensorFlow does not know how the draw would "
        "change with {name}", "Write the draw as a function of its parameters: mean + std * tf.random.normal(shape)"),
    Row("non_differentiable_op", "", HISTOGRAM, "{op} counts, and a count has no derivative",
        "Count softly: tf.reduce_sum(tf.nn.softmax(-((x[:, None] - centres) ** 2) / width), axis=0)"),
    Row("non_differentiable_op", "", TEXT, "{op} makes a text or bytes, which have no derivative",
        "Compute with the numbers themselves, and make the text outside of the loss"),
    Row("non_differentiable_op", "", "", "TensorFlow has no derivative of {op} with respect to {name}",
        "Write {op} with other tf.* operations, or define its derivative with tf.custom_gradient"),
    # ------------------------------------------------------------------------------------------ zero
    Row("zero", "cancels", "", "{name} reaches the target along several ways, whose gradients add up to exactly 0",
        "Look for a difference of equal things (x - x, a mean taken from itself, a softmax that sums to 1): the target "
        "does not change with it"),
    Row("zero", "", RELU, "every input of this ReLU is negative, where its slope is 0",
        "Use tf.nn.leaky_relu, a smaller learning rate, or no ReLU at the output"),
    Row("zero", "", LIMIT, "every value is beyond the limit of {op}, where the slope is 0",
        "Move the limit, or clip only what is shown"),
    Row("zero", "", "Sigmoid", "the inputs of {op} are so large that its slope is 0",
        "Give the inputs of the sigmoid to the loss, with from_logits=True; without such a loss, scale them down"),
    Row("zero", "", SATURATED, "the inputs of {op} are so large that its slope is 0", "Scale the inputs of {op} down"),
    Row("zero", "", "Softmax", "the outputs of {op} add up to 1 (over one unit each is 1), and do not change here",
        "Use tf.sigmoid for one unit, and a loss with from_logits=True"),
    Row("zero", "", "Complex", "the target is complex, and only its real part is differentiated",
        "Return tf.math.real, tf.math.imag or tf.abs of it"),
    Row("zero", "", "Cast", "the gradient is imaginary here, and the source is real",
        "Let the target be real: tf.math.real or tf.abs"),
    Row("zero", "", STATIONARY, "the slope of {op} is 0 at its input",
        "If this is the loss at its minimum, 0 is right; if not, print the input of {op}"),
    Row("zero", "", PRODUCT, "the other factor of {op} is 0", "See why it is: a mask, a weight, an initial value"),
    Row("zero", "", SELECT, "no element of this branch is taken",
        "Print the condition, and see why no element takes this branch"),
    Row("zero", "", "", "the gradient arrives at {op}, and is 0 behind it", "Print the inputs of {op}"),
    # ------------------------------------------------------------------------------------------ NaN and infinity
    Row("nan", "given", "", "a value that comes in is NaN or infinite already",
        "Look at the data, and at {name} itself, before fn"),
    Row("nan", "masked", "", _SLOPE + ". tf.where takes the other branch, but multiplies the gradient of this one "
        "by 0, and 0 times infinity is NaN", "Choose a safe input first, then the result: "
        "safe = tf.where(ok, x, 1.0), and tf.where(ok, {masked}, other)"),
    Row("nan", "value", "Exp", _UNDEFINED, "Use tf.reduce_logsumexp or tf.nn.softmax, which do not overflow"),
    Row("nan", "value", "", _UNDEFINED, "Keep the input of {op} in its range: {safe}"),
    Row("nan", "slope", "", _SLOPE, "Write {safe}"),
    Row("zero", "", "", "the gradient arrives, and every element of it is 0", "Print what {name} goes into"),
    Row("nan", "", "", "some element of the gradient is NaN or infinite", "Print what {name} goes into"),
]  # fmt: skip

# Operation -> how to write it so that its value and slope are finite, and the same behind a tf.where.
_SAFE = {
    "Log": ("tf.math.log(x + 1e-7), or a loss with from_logits=True", "tf.math.log(safe)"),
    "Sqrt": ("tf.sqrt(x + 1e-12)", "tf.sqrt(safe)"),
    "Pow": ("tf.pow(tf.maximum(x, 1e-6), a)", "safe ** a"),
    "RealDiv": ("tf.math.divide_no_nan(a, b), or b + 1e-7", "1 / safe"),
}


def sentences(fact: Any, name: str) -> tuple[str, str]:
    """Return ``(why, advice)`` for the gradient of the source `name`, each without its full stop."""
    row = next(row for row in TABLE if _fits(row, fact))
    op, code = fact.op or "this operation", fact.at.code if fact.at else ""
    safe, masked = _SAFE.get(fact.kind, ("another input, or another operation", "f(safe)"))
    writes = re.search(r"[\w.]+(?:\[[^\]]*\]\.)?(?:assign\w*|update_state|set_weights|insert)\(", code)
    told = {
        "name": name,
        "op": op,
        "inside": op if fact.kind.lower() in op.lower() else f"{fact.kind} in {op}",
        "owner": op.rpartition(".")[0],
        "dtype": fact.dtype,
        "other": fact.other,
        "what": fact.other or "another tensor",
        "ready": "; ".join(fact.ready),
        "instead": ". It reads tensors that were made before it ran: " + "; ".join(fact.ready) if fact.ready else "",
        "written": writes[0] + "...)" if writes else in_tensorflow(op) or op,
        "safe": safe,
        "masked": masked,
    }
    return row.why.format(**told), row.advice.format(**told)


def _fits(row: Row, fact: Any) -> bool:
    return (
        row.cause == fact.cause
        and row.detail in ("", fact.detail)
        and (not row.kinds or fact.kind in row.kinds.split())
    )


def in_tensorflow(call: str) -> str:
    """Return the function of TensorFlow that does what a function of NumPy or `math` does, or an empty string."""
    name = call.rpartition(".")[2]
    places = {"tf": tf, "tf.math": tf.math, "tf.linalg": tf.linalg}
    names = (name, f"reduce_{name}")
    return next((f"{at}.{each}" for each in names for at, where in places.items() if hasattr(where, each)), "")
