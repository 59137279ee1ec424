"""`Ring`: the rows of statistics and the histograms that wait on the device until `GradientLog` fetches them."""

from typing import Any

import numpy as np
import tensorflow as tf

from tapekit.logs.statistics import CODES, STATISTICS, count, real_and_dense, summarize


class Ring:
    """A ring buffer of the last `capacity` rows, and the number of steps so far.

    A row is ``[loss, global norm, norm of each gradient, mean of each, ...]``; row r is step r * `every`. If
    `histograms` is n > 0, every n-th row has counts too. If `weights` are given, a copy of them is kept, and the update
    ratio of a step is written when the next step begins.
    """

    def __init__(self, gradients: int, weights: list, *, every: int, histograms: int, capacity: int, start: int):
        self.weights, self.every, self.histograms = weights, every, histograms
        self.capacity, self.start = capacity, start
        held = capacity // histograms + 1 if histograms else 0
        self._compiled: dict[tuple, Any] = {}

        def variable(value: Any) -> tf.Variable:  # under a strategy, the variable of the first replica
            return tf.distribute.get_strategy().experimental_local_results(tf.Variable(value, trainable=False))[0]

        with tf.init_scope():  # outside of any graph
            self.steps = variable(tf.constant(start * every, tf.int64))
            self.rows = variable(tf.zeros([capacity, 2 + gradients * len(STATISTICS)]))
            self.counts = variable(tf.zeros([held, gradients, CODES], tf.int64))
            self.ratios = variable(tf.zeros([capacity, len(weights)]))
            self.before = [variable(tf.zeros(v.shape, v.dtype)) for v in weights]

    def write(self, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        """Add the operations of one step to the graph: the last step's update ratio, and the row if it is due."""
        step = self.steps.read_value()
        written = []
        if self.weights:
            due = (step > self.start * self.every) & ((step - 1) % self.every == 0)
            written.append(tf.cond(due, lambda: self._write_ratios(step - 1), tf.no_op))
        if self.every == 1:
            written.append(self._write_row(step, gradients, loss, scale))
        else:
            due = step % self.every == 0
            written.append(tf.cond(due, lambda: self._write_row(step, gradients, loss, scale), tf.no_op))
        # A reader in another thread finds no row that is not written yet. If the data runs out or a check fails, the
        # gradients are not computed, and the step does not count.
        with tf.control_dependencies([*written, *(getattr(g, "values", g) for g in gradients if g is not None)]):
            self.steps.assign_add(1)

    def write_eagerly(self, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        """Write one step eagerly, by a function that is compiled once for each set of dtypes and shapes.

        It is called as a raw operation: to call a `tf.function` takes twice as long as the statistics of a small model.
        """
        key = (isinstance(scale, float) and scale, *(g is not None and (g.dtype, g.shape) for g in gradients))
        if key not in self._compiled:
            self._compiled[key] = tf.function(self.write, autograph=False).get_concrete_function(gradients, loss, scale)
        given = [value for value in (*gradients, loss, scale) if isinstance(value, tf.Tensor)]
        compiled = self._compiled[key]
        tf.raw_ops.StatefulPartitionedCall(args=[*given, *compiled.captured_inputs], Tout=[], f=compiled.name)

    def fetch(self, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the numbers of the rows from `first` on, the rows with their ratios, and `Records.counts`."""
        steps = int(self.steps)
        end = -(-steps // self.every)
        numbers = np.arange(max(first, end - self.capacity), end)
        rows = tf.gather(self.rows, numbers % self.capacity).numpy()
        if self.weights and len(rows):
            if (steps - 1) % self.every == 0:  # there is no next step yet that writes the last ratio
                self._write_ratios(tf.constant(steps - 1, tf.int64))
            ratios = tf.gather(self.ratios, numbers % self.capacity).numpy()
            if not ratios[-1].any():  # the last update has not been applied yet
                ratios[-1] = np.nan
            rows = np.hstack([rows, ratios])
        if not self.histograms:
            return numbers, rows, np.zeros([4, 0], np.int64)
        counted = numbers[numbers % self.histograms == 0]
        counts = tf.gather(self.counts, counted // self.histograms % self.counts.shape[0]).numpy()
        filled = counts > 0
        filled[:, :1, 0] = True  # the step is listed, even if every gradient is None
        which, *places = np.nonzero(filled)
        return numbers, rows, np.stack([counted[which] * self.every, *places, counts[filled]])

    def _write_row(self, step: tf.Tensor, gradients: list, loss: tf.Tensor, scale: Any) -> Any:
        gradients = real_and_dense(gradients)
        if not isinstance(scale, float) or scale != 1.0:
            gradients = [None if g is None else tf.cast(g, tf.float32) / scale for g in gradients]
        table, global_norm = summarize(gradients)
        for before, weight in zip(self.before, self.weights, strict=True):
            before.assign(weight)
        row = step // self.every
        written = [_put(self.rows, row, tf.concat([[loss, global_norm], tf.reshape(table, [-1])], 0))]
        if self.histograms:
            place, due = row // self.histograms, row % self.histograms == 0
            written.append(tf.cond(due, lambda: _put(self.counts, place, count(gradients)), tf.no_op))
        return tf.group(*written)

    def _write_ratios(self, step: tf.Tensor) -> Any:
        pairs = [[tf.cast(v, tf.float32) for v in pair] for pair in zip(self.before, self.weights, strict=True)]
        return _put(self.ratios, step // self.every, tf.stack([tf.norm(w - old) / tf.norm(old) for old, w in pairs]))


def _put(ring: tf.Variable, place: tf.Tensor, value: tf.Tensor) -> Any:
    """Write in place, where ``ring[place].assign(value)`` would copy the whole ring."""
    where = {"resource": ring.handle, "indices": [place % ring.shape[0]]}
    return tf.raw_ops.ResourceScatterUpdate(updates=value[tf.newaxis], **where)
