"""`fn` as a TensorFlow graph that is queried and run: `capture`; `eager_gradients` needs no graph.

The automatic control dependencies of a `tf.function` keep reads and assignments of variables in the order in which they
were written. Values and gradients are computed by one run of one graph, so that both belong to the same random draw.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import tensorflow as tf

from tapekit._sources import Call, as_variable, describe, is_float, values_of, watch_all
from tapekit.graphs.answers import Answer, Answers, Question
from tapekit.graphs.recording import LeftTensorFlow, Recording
from tapekit.graphs.state import ONE_AT_A_TIME, all_variables_kept, draws_kept, undisturbed, variables_kept
from tapekit.jacobians import variable_scope_kept


def capture(call: Call, ask: Callable[[Recording], Any], answers: Sequence[Answer] = ()) -> tuple[Recording, Any]:
    """Trace `call`, and run once the tensors that `ask(recording)` returns.

    Returns the recording, and the structure that `ask` returned with NumPy arrays in the place of its tensors (None
    stays None). Every variable keeps its value. Where `fn` uses the value of a tensor in Python, it is traced again
    with that value; the `answers` are those of an earlier recording of `call`.
    """
    require_eager(call)
    given = [*answers]
    with ONE_AT_A_TIME, variable_scope_kept():
        while True:
            try:
                concrete, recording, question = _trace(call, ask, given)
            except LeftTensorFlow as error:
                concrete, recording, question = _as_functions(call, ask, error)
            with variables_kept(concrete, (source for source in call.sources if isinstance(source, tf.Variable))):
                found = concrete()
            if question is None:
                return recording, tf.nest.map_structure(lambda x: None if x is None else x.numpy(), found)
            given.append(Answer(found.numpy(), traceback.extract_tb(question.__traceback__)))


def require_eager(call: Call) -> None:
    """Raise an error while a `tf.function` is traced, or where a source has one value on each replica."""
    if not tf.executing_eagerly():
        raise RuntimeError(
            f"{call.where}: called inside a tf.function. It runs fn itself, and needs numbers. Call it outside; fn may "
            "be the tf.function."
        )
    for name, source in zip(call.names, call.sources, strict=True):
        if isinstance(source, tf.distribute.DistributedValues) and tf.distribute.in_cross_replica_context():
            raise RuntimeError(
                f"{call.where}: source {name!r} has a value on each replica, and a strategy's scope selects none of "
                "them. Call it outside of the scope, or inside strategy.run."
            )


def eager_gradients(call: Call) -> list[Any]:
    """Return the gradient of each source on an eager tape; variables and random state keep their values."""
    floats = [*filter(is_float, call.sources)]
    with all_variables_kept(), draws_kept(), undisturbed():
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            watch_all(tape, floats)
            result = call()
        target = [part for part in tf.nest.flatten(result) if tf.is_tensor(part) and is_float(part)]
        found = _gradients(tape, target, floats) if target else [None] * len(floats)
    by_source = {id(source): gradient for source, gradient in zip(floats, found, strict=True)}
    return [by_source.get(id(source)) for source in call.sources]


def _gradients(tape: tf.GradientTape, target: list, sources: list) -> list:
    """Return the gradient of each source; None also behind an operation that has no registered gradient."""
    try:
        return tape.gradient(target, sources)
    except LookupError:
        return [None] if len(sources) == 1 else [_gradients(tape, target, [source])[0] for source in sources]


def graph_of(call: Call, ask: Callable) -> tuple[Any, Recording]:
    """Return the concrete function that computes `ask`, and the recording, if `fn` uses no value in Python."""
    try:
        return _trace(call, ask)[:2]
    except LeftTensorFlow as error:
        return _as_functions(call, ask, error)[:2]


def _as_functions(call: Call, ask: Callable, error: LeftTensorFlow) -> tuple[Any, Any, Question | None]:
    """Return what `_trace` returns, with nested `tf.function`s as AutoGraph makes them, or raise `error`."""
    with suppress(LeftTensorFlow):
        return _trace(call, ask, inline=False)
    try:
        eager_gradients(call)
    except Exception:
        raise error.__cause__ from None  # type: ignore[misc]  # the mistake is one of fn's own
    raise error


def _trace(call: Call, ask: Callable, given: list | None = None, *, inline: bool = True) -> tuple[Any, Any, Any]:
    """Return the concrete function that computes `ask`, the recording, and the `Question` that ends `fn`, or None.

    With `inline`, the bodies of nested `tf.function`s become a part of the graph.
    """
    recordings: list[Recording] = []
    answers = Answers(given)

    def body() -> Any:
        graph = tf.compat.v1.get_default_graph()
        entries = [entry(source) for source in call.sources]
        leaves = [_in_graph(*each) for each in zip(call.leaves, call.sources, entries, strict=True)]
        start = len(graph.get_operations())
        graph.seed = 1 if graph.seed is None else graph.seed  # the next run draws the same numbers
        try:
            with _functions_run_eagerly(inline), answers.told(), undisturbed():
                result = call(leaves)
        except (Question, Exception) as error:
            if not answers.question:
                raise LeftTensorFlow(call.where, traceback.extract_tb(error.__traceback__), error) from error
            answers.question.with_traceback(error.__traceback__)  # NumPy raises an error of its own in its place
        if answers.question:  # also where fn caught it
            return answers.question.tensor
        target, ops = _target(call, result), graph.get_operations()[start:]
        recordings.append(Recording(call, graph, entries, ops, target, answers.variables, given or [], answers.asked))
        return ask(recordings[-1])

    concrete = tf.function(body, autograph=False).get_concrete_function()
    recording = recordings[-1] if recordings else None
    return concrete, recording, answers.question


def entry(source: Any) -> tf.Tensor:
    """Return the tensor by which a source enters the graph that is being made: its values, or a variable's handle."""
    # A captured tensor enters a graph once: the input of an Identity of it is the tensor that fn reads, also where
    # TensorFlow embeds a small tensor as a Const.
    return tf.identity(source.handle if isinstance(source, tf.Variable) else values_of(source)).op.inputs[0]


def _in_graph(leaf: Any, source: Any, tensor: tf.Tensor) -> Any:
    """Return `leaf` as `fn` receives it: a variable, or the tensor by which it enters the graph."""
    if isinstance(source, tf.Variable):
        return leaf
    return source.with_flat_values(tensor) if isinstance(source, tf.RaggedTensor) else tensor


def leaves_at(call: Call, point: tf.Tensor) -> list:
    """Return the arguments of `fn` at `point`, one flat real vector; variables are assigned."""
    leaves: list = []
    sources = [values_of(source) for source in call.sources]
    sizes = [x.shape.num_elements() * (1 + x.dtype.is_complex) for x in sources]
    for leaf, source, x in zip(call.leaves, sources, tf.split(point, sizes), strict=True):
        x = tf.cast(x, source.dtype.real_dtype)
        if source.dtype.is_complex:
            x = tf.complex(*tf.unstack(tf.reshape(x, [-1, 2]), axis=-1))
        value = tf.reshape(x, source.shape)
        if (variable := as_variable(leaf)) is not None:
            variable.assign(value)
            value = leaf
        elif not call.takes_vars:
            given = f"source {call.names[len(leaves)]!r} is {describe(leaf)} that fn closes over"
            need = "fn cannot be traced to a graph in float64. Let fn take it, or make it a tf.Variable."
            raise ValueError(f"{call.where}: {given}, and {need}")
        leaves.append(leaf.with_flat_values(value) if isinstance(leaf, tf.RaggedTensor) else value)
    return leaves


def _target(call: Call, result: Any) -> tf.Tensor:
    """Return the result of `fn` as one tensor; several tensors are added, and so are their gradients."""
    flat = tf.nest.flatten(result, expand_composites=True)
    try:
        if len(flat) == 1:
            only = tf.convert_to_tensor(flat[0])
            return only if tf.is_symbolic_tensor(only) else tf.identity(only)
        parts = [tf.convert_to_tensor(part) for part in flat]
        if isinstance(result, tf.RaggedTensor):
            parts = [part for part in parts if is_float(part)]
        if len({part.dtype for part in parts}) > 1 and all(is_float(part) for part in parts):
            wide = tf.complex128 if any(part.dtype.is_complex for part in parts) else tf.float64
            parts = [tf.cast(part, wide) for part in parts]
        return tf.add_n([tf.reduce_sum(part) for part in parts], name="target")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{call.where}: fn returned {describe(result)}. It must return the target, a float tensor. Let it return "
            "the loss."
        ) from error


@contextmanager
def _functions_run_eagerly(value: bool) -> Iterator[None]:
    """Put the bodies of nested `tf.function`s in line if `value` is True, also if they are compiled by XLA."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(value)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
            yield
    finally:
        tf.config.run_functions_eagerly(before)
