"""Statistics and histograms, computed and kept on the device of the gradients: `Ring`, `summarize`, `count`."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapekit import _sources

STATISTICS = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite")
SMALL = 1 << 16  # up to this number of elements, float64 costs nothing that can be measured
CODES = 1 << 10  # of the first ten bits of a float32: the sign, the exponent and one bit of the mantissa


class Rows(NamedTuple):
    """Rows as arrays, the first step first. By default there are none."""

    steps: np.ndarray = np.zeros([0], np.int64)  # `[rows]`
    loss: np.ndarray = np.zeros([0], np.float32)  # `[rows]`
    global_norm: np.ndarray = np.zeros([0], np.float32)  # `[rows]`
    table: np.ndarray = np.zeros([0, len(STATISTICS), 0], np.float32)  # `[rows, statistics, variables]`
    histogram_steps: np.ndarray = np.zeros([0], np.int64)  # `[histograms]`
    counts: np.ndarray = np.zeros([0, 0, CODES], np.int32)  # `[histograms, variables, codes]`


class Ring:
    """A ring buffer of the last `capacity` rows. Row r is step r * `every`; the rows r * `histograms` have counts.

    A copy of the `weights` is kept, and the update ratio of a step is written when the next step begins.
    """

    def __init__(self, gradients: int, weights: list, every: int, histograms: int, capacity: int, start: int):
        self.gradients, self.weights, self.histograms = gradients, weights, histograms
        self.every, self.capacity, self.start = every, capacity, start
        self._compiled: dict[tuple, Any] = {}

        def variable(value: Any) -> tf.Variable:  # under a strategy, the variable of the first replica
            return tf.distribute.get_strategy().experimental_local_results(tf.Variable(value, trainable=False))[0]

        self.steps = variable(tf.constant(start * every, tf.int64))
        self.rows = variable(tf.zeros([capacity, 2 + gradients * len(STATISTICS)]))
        self.counts = variable(tf.zeros([capacity // histograms + 1 if histograms else 0, gradients, CODES], tf.int64))
        self.ratios = variable(tf.zeros([capacity, len(weights)]))
        self.before = [variable(tf.zeros(v.shape, v.dtype)) for v in weights]

    def write(self, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        """Add the operations of one step to the graph: the last step's update ratio, and the row if it is due."""
        step = self.steps.read_value()
        written = []
        if self.weights:
            due = (step > self.start * self.every) & ((step - 1) % self.every == 0)
            written.append(tf.cond(due, lambda: self._write_ratios(step - 1), tf.no_op))
        row = functools.partial(self._write_row, step, gradients, loss, scale)
        written.append(row() if self.every == 1 else tf.cond(step % self.every == 0, row, tf.no_op))
        # a step counts after its row is written, as another thread may read, and not if its gradients have failed
        with tf.control_dependencies([*written, *(getattr(g, "values", g) for g in gradients if g is not None)]):
            self.steps.assign_add(1)

    def write_eagerly(self, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        """Write one step eagerly, by a function that is compiled once for each set of dtypes and shapes."""
        gradients = real_and_dense(gradients)
        key = (isinstance(scale, float) and scale, *((g.dtype, g.shape) for g in gradients))
        if key not in self._compiled:
            self._compiled[key] = tf.function(self.write, autograph=False).get_concrete_function(gradients, loss, scale)
        given = [value for value in (*gradients, loss, scale) if isinstance(value, tf.Tensor)]
        compiled = self._compiled[key]  # to call a tf.function takes longer than the statistics of a small model
        tf.raw_ops.StatefulPartitionedCall(args=[*given, *compiled.captured_inputs], Tout=[], f=compiled.name)

    def fetch(self, first: int) -> Rows:
        """Return the rows from number `first` on."""
        steps = int(self.steps)
        end = -(-steps // self.every)
        numbers = np.arange(max(first, end - self.capacity), end)
        rows = tf.gather(self.rows, numbers % self.capacity).numpy()
        if self.weights:
            if (steps - 1) % self.every == 0:  # there is no next step yet that writes the last ratio
                self._write_ratios(tf.constant(steps - 1, tf.int64))
            ratios = tf.gather(self.ratios, numbers % self.capacity).numpy()
            ratios[-1:][~ratios[-1:].any(1)] = np.nan  # the last update has not been applied yet
            rows = np.hstack([rows, ratios])
        counted = numbers[numbers % self.histograms == 0] if self.histograms else numbers[:0]
        counts = tf.gather(self.counts, counted // self.histograms % self.counts.shape[0]).numpy().astype(np.int32)
        table = rows[:, 2:].reshape(len(rows), len(STATISTICS) + bool(self.weights), self.gradients)
        return Rows(numbers * self.every, rows[:, 0], rows[:, 1], table, counted * self.every, counts)

    def _write_row(self, step: tf.Tensor, gradients: list, loss: tf.Tensor, scale: Any) -> Any:
        gradients = real_and_dense(gradients)
        if not isinstance(scale, float) or scale != 1.0:
            gradients = [tf.cast(g, tf.float32) / scale for g in gradients]
        for before, weight in zip(self.before, self.weights, strict=True):
            before.assign(weight)
        row = step // self.every
        written = [_put(self.rows, row, tf.concat([[loss], summarize(gradients)], 0))]
        if self.histograms:
            place, due = row // self.histograms, row % self.histograms == 0
            written.append(tf.cond(due, lambda: _put(self.counts, place, count(gradients)), tf.no_op))
        return tf.group(*written)

    def _write_ratios(self, step: tf.Tensor) -> Any:
        pairs = [real_and_dense(pair) for pair in zip(self.before, self.weights, strict=True)]
        pairs = [[tf.cast(v, tf.float32) for v in pair] for pair in pairs]
        return _put(self.ratios, step // self.every, tf.stack([tf.norm(w - old) / tf.norm(old) for old, w in pairs]))


def _put(ring: tf.Variable, place: tf.Tensor, value: tf.Tensor) -> Any:
    """Write in place, where ``ring[place].assign(value)`` would copy the whole ring."""
    where = {"resource": ring.handle, "indices": [place % ring.shape[0]]}
    return tf.raw_ops.ResourceScatterUpdate(updates=value[tf.newaxis], **where)


def sum_over_replicas(gradients: list, loss: tf.Tensor) -> tuple[list, tf.Tensor, bool]:
    """Return the sums of gradients and losses, which an optimizer applies, and whether this replica writes them."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return gradients, loss, True
    present = _sources.dense([g for g in gradients if g is not None])
    loss, *summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, [loss, *present])
    gradients = [None if g is None else summed.pop(0) for g in gradients]
    own = len(replica.strategy.extended.worker_devices)  # the replicas of this process
    return gradients, loss, tf.get_static_value(replica.replica_id_in_sync_group) % own == 0


def real_and_dense(gradients: Sequence) -> list:
    """Return each gradient as one real tensor, complex numbers as two of its elements. A None is an empty tensor."""
    dense = [tf.zeros([0]) if g is None else g for g in _sources.dense(gradients)]
    return [tf.stack([tf.math.real(g), tf.math.imag(g)]) if g.dtype.is_complex else g for g in dense]


def summarize(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the global norm of dense gradients, and their `STATISTICS`: each norm, then each mean and so on, float32.

    All but ``nonfinite`` are over the finite elements, NaN if there are none. All are NaN if the gradient is empty.
    """
    flat = [tf.reshape(g, [-1]) for g in gradients]
    groups: dict[Any, list[int]] = {}  # small gradients of one size are the rows of one matrix, to save operations
    for i, g in enumerate(flat):
        size = g.shape.num_elements()
        groups.setdefault(i if size is None or size > SMALL else (g.dtype, size), []).append(i)
    sizes, sums = _accurate_sums([tf.stack([flat[i] for i in group]) for group in groups.values()])
    squares, total, highest, lowest, nonzero, nonfinite = tf.unstack(sums)
    count = sizes - nonfinite
    mean = total / count
    std = tf.sqrt(tf.maximum(squares / count - mean**2, 0.0))  # sqrt(E[x²] - E[x]²)
    largest = tf.maximum(tf.maximum(highest, -lowest), 0.0)
    norm, largest = (tf.where(count > 0, x, np.nan) for x in (tf.sqrt(squares), largest))
    table = tf.stack([norm, mean, std, largest, 1 - nonzero / count, tf.where(sizes > 0, nonfinite, np.nan)])
    table = tf.gather(table, np.argsort(np.concatenate(list(groups.values()))), axis=1)
    global_norm = tf.sqrt(tf.where(tf.reduce_any(count > 0), tf.reduce_sum(squares), np.nan))
    return tf.cast(tf.concat([[global_norm], tf.reshape(table, [-1])], 0), tf.float32)


def count(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return how many elements of each dense gradient have each code, `[gradients, codes]` int64."""
    rows, ones = [], tf.zeros([0], tf.int32)  # without weights, each element counts as one
    for gradient in gradients:
        bits = tf.bitcast(tf.cast(tf.reshape(gradient, [-1]), tf.float32), tf.uint32)
        codes = tf.cast(tf.bitwise.right_shift(bits, tf.constant(22, tf.uint32)), tf.int32)
        # tf.math.bincount computes its size, which XLA does not allow
        rows.append(tf.raw_ops.DenseBincount(input=codes, size=CODES, weights=ones))
    return tf.cast(tf.stack(rows), tf.int64)


def _accurate_sums(matrices: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the number of elements of each row, and its `_finite_sums`; at most steps, `_sums` are accurate enough."""
    sizes = tf.concat([tf.fill([x.shape[0]], tf.cast(tf.shape(x, tf.int64)[1], tf.float64)) for x in matrices], 0)
    wide = [x.dtype == tf.float64 or (x.shape[1] or 0) <= SMALL for x in matrices]
    quick = [_sums(tf.cast(x, tf.float64 if w else tf.float32)) for x, w in zip(matrices, wide, strict=True)]
    quick = tf.pad(tf.concat(quick, 1), [[0, 1], [0, 0]])
    squares, total, nonzero, each = quick[0], quick[1], quick[4], np.repeat(wide, [x.shape[0] for x in matrices])
    # accurate sums are finite, without underflow of x² or cancellation (total² near squares * sizes, its upper bound)
    whole = (squares > np.where(each, 0.0, 1e-30)) | (nonzero == 0.0)
    cancels = total**2 > np.where(each, 2.0, 0.5) * squares * sizes
    accurate = tf.reduce_all(tf.math.is_finite(squares) & whole & ~cancels)
    return sizes, tf.cond(accurate, lambda: quick, lambda: tf.concat([_finite_sums(x) for x in matrices], 1))


def _sums(x: tf.Tensor) -> tf.Tensor:
    """Return ``[sum of x², sum of x, maximum, minimum, number of nonzero elements]`` of each row, `[sums, rows]`."""
    # each sum is one pass over memory, which was measured to be cheaper than fused passes
    one = x.shape[0] == 1  # a vector, for which l2_loss makes no copy
    squares, nonzero = (2 * tf.nn.l2_loss(y)[tf.newaxis] if one else tf.reduce_sum(y * y, 1) for y in (x, tf.sign(x)))
    sums = [squares, tf.reduce_sum(x, 1), tf.reduce_max(x, 1), tf.reduce_min(x, 1), nonzero]
    return tf.cast(tf.stack(sums), tf.float64)


def _finite_sums(x: tf.Tensor) -> tf.Tensor:
    """Return `_sums` over the finite elements, and the number of the other elements."""
    x = tf.cast(x, tf.float64)
    finite = tf.math.is_finite(x)
    return tf.concat([_sums(tf.where(finite, x, 0.0)), [tf.reduce_sum(tf.cast(~finite, tf.float64), 1)]], 0)
