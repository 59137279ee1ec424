"""`Ring`: the rows of statistics that wait on the device until `GradientLog` fetches them."""

from typing import Any

import numpy as np
import tensorflow as tf

from tapekit.logs.statistics import STATISTICS, real_and_dense, summarize


class Ring:
    """A ring buffer of the last `capacity` rows, and the number of steps so far.

    A row is ``[loss, global norm, norm of each gradient, mean of each, ...]``; row r is step r * `every`. If `weights`
    are given, a copy of them is kept, and the update ratio of a step is written when the next step begins.
    """

    def __init__(self, gradients: int, weights: list, *, every: int, capacity: int, start: int):
        self.weights, self.every, self.capacity, self.start = weights, every, capacity, start
        self._compiled: dict[tuple, Any] = {}

        def variable(value: Any) -> tf.Variable:  # under a strategy, the variable of the first replica
            return tf.distribute.get_strategy().experimental_local_results(tf.Variable(value, trainable=False))[0]

        with tf.init_scope():  # outside of any graph
            self.steps = variable(tf.constant(start * every, tf.int64))
            self.rows = variable(tf.zeros([capacity, 2 + gradients * len(STATISTICS)]))
            self.ratios = variable(tf.zeros([capacity, len(weights)]))
            self.before = [variable(tf.zeros(v.shape, v.dtype)) for v in weights]

    def write(self, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        """Add the operations of one step to the graph: the last step's update ratio, and the row if it is due."""
        step = self.steps.read_value()
        if self.weights:
            due = (step > self.start * self.every) & ((step - 1) % self.every == 0)
            tf.cond(due, lambda: self._write_ratios(step - 1), lambda: None)
        if self.every == 1:
            self._write_row(step, gradients, loss, scale)
        else:
            tf.cond(step % self.every == 0, lambda: self._write_row(step, gradients, loss, scale), lambda: None)
        # if the data runs out or a check fails, the gradients are not computed, and the step does not count
        with tf.control_dependencies([getattr(g, "values", g) for g in gradients if g is not None]):
            self.steps.assign_add(1)

    def write_eagerly(self, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        """Write one step eagerly, by a function that is compiled once for each set of dtypes and shapes.

        It is called as a raw operation: a call of a `tf.function` takes twice as long as the statistics of a small
        network.
        """
        kinds = [g is not None and (g.dtype, g.shape) for g in gradients]
        tensors = [g for g in [*gradients, scale] if isinstance(g, tf.Tensor)]
        fixed = scale if isinstance(scale, float) else None
        key = (fixed, *kinds)
        if key not in self._compiled:

            def write(loss: tf.Tensor, *given: tf.Tensor) -> None:
                rest = iter(given)
                self.write([next(rest) if kind else None for kind in kinds], loss, next(rest, fixed))

            self._compiled[key] = tf.function(write, autograph=False).get_concrete_function(loss, *tensors)
        compiled = self._compiled[key]
        given = [loss, *tensors, *compiled.captured_inputs]
        tf.raw_ops.StatefulPartitionedCall(args=given, Tout=[], f=compiled.name)

    def fetch(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the rows from `first` on that are still in the ring, and the rows with their ratios."""
        steps = int(self.steps)
        end = -(-steps // self.every)
        numbers = np.arange(max(first, end - self.capacity), end)
        slots = numbers % self.capacity
        rows = tf.gather(self.rows, slots).numpy()
        if not self.weights or not len(rows):
            return numbers, rows
        if (steps - 1) % self.every == 0:  # there is no next step yet that writes the last ratio
            self._write_ratios(self.steps - 1)
        ratios = tf.gather(self.ratios, slots).numpy()
        if not ratios[-1].any():  # the last update has not been applied yet
            ratios[-1] = np.nan
        return numbers, np.hstack([rows, ratios])

    def _write_row(self, step: tf.Tensor, gradients: list, loss: tf.Tensor, scale: Any) -> None:
        gradients = real_and_dense(gradients)
        if not isinstance(scale, float) or scale != 1.0:
            gradients = [None if g is None else tf.cast(g, tf.float32) / scale for g in gradients]
        table, global_norm = summarize(gradients)
        for before, weight in zip(self.before, self.weights, strict=True):
            before.assign(weight)
        self._put(self.rows, step, tf.concat([[loss, global_norm], tf.reshape(table, [-1])], 0))

    def _write_ratios(self, step: tf.Tensor) -> None:
        pairs = [
            (tf.cast(old, tf.float32), tf.cast(w, tf.float32)) for old, w in zip(self.before, self.weights, strict=True)
        ]
        self._put(self.ratios, step, tf.stack([tf.norm(w - old) / tf.norm(old) for old, w in pairs]))

    def _put(self, ring: tf.Variable, step: tf.Tensor, row: tf.Tensor) -> None:
        # scatter_update writes in place; ring[slot].assign(row) would copy the whole ring
        ring.scatter_update(tf.IndexedSlices(row[tf.newaxis], [step // self.every % self.capacity]))
