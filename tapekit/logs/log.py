"""`GradientLog`: statistics of the gradients of every training step, in your own loop and in Keras `fit`."""

import contextlib
import dataclasses
import functools
import operator
import os
import re
import threading
import time
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit import _sources
from tapekit._names import some
from tapekit.logs import files
from tapekit.logs.fit import FitCallback
from tapekit.logs.records import Records
from tapekit.logs.ring import Ring, Rows, sum_over_replicas

SECONDS = 5.0  # between two writes to `path` and `logdir`


class GradientLog(Records, FitCallback):
    """A record of the gradients of every step, in any loop and in `fit(callbacks=[log])` of Keras 3 and of tf_keras.

    The statistics are computed on the device of the gradients and wait there in a ring buffer of `capacity` rows.
    Reading the log fetches them. The gradients of `fit` are recorded before clipping and without the loss scale. Under
    `tf.distribute` gradients and losses are summed over the replicas: divide each loss by the global batch size.

    Args:
        every: record every n-th step only. The other steps are counted, and nothing is computed for them.
        updates: also record ||w_new - w_old|| / ||w_old||, from a copy of the weights before the update.
        histograms: keep the distribution of each gradient, as float32, in every n-th row; None for no row.
        path: a csv file to which the chief worker appends the rows, without histograms. `load` reads it back.
        logdir: a folder to which the chief worker writes rows and histograms for TensorBoard. Both are written after
            each epoch, every few seconds of an eager loop or of `fit`, and at each `drain`, with which a loop ends.
        capacity: the number of rows in the ring buffer; by default 1024, or fewer if these would hold more than 64
            histograms (8 kB per variable). A `tf.function` that writes more between two reads loses the oldest rows.

    Raises:
        TypeError, ValueError: a number is not a positive integer, or `path` or `logdir` does not name such a file.

    Example:
        >>> w, log = tf.Variable([3.0, 4.0], name="w"), GradientLog(histograms=1)
        >>> log.record([2.0 * w], [w], loss=tf.reduce_sum(w**2))
        >>> log["w"].norm.tolist(), log.loss.tolist()
        ([10.0], [25.0])
        >>> edges, counts = log.histogram("w")
        >>> edges[:-1][counts > 0].tolist(), counts[counts > 0].tolist()
        ([6.0, 8.0], [1, 1])
    """

    def __init__(
        self, *, every: int = 1, updates: bool = False, histograms: int | None = None, capacity: int | None = None,
        path: str | os.PathLike | None = None, logdir: str | os.PathLike | None = None,
    ):  # fmt: skip
        FitCallback.__init__(self)
        for name, value in {"every": every, "histograms": histograms, "capacity": capacity}.items():
            positive = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0
            if not positive and (value is not None or name == "every"):
                raise ValueError(f"GradientLog: {name} is {value!r}. A positive integer is needed. Write {name}=1.")
        self.every, self.updates, self.histograms = every, updates, histograms
        self.capacity = capacity or min(1024, 64 * (histograms or 1024))
        self._outputs: list = [] if path is None else [files.CsvFile(files.path_of("GradientLog: path", path, ".npz"))]
        self._outputs += [] if logdir is None else [files.EventFile(files.path_of("GradientLog: logdir", logdir))]
        self._ring: Any = None
        self._blocks: list[Rows] = []  # as fetched
        self._next = 0  # the row to fetch next
        self._since, self._drained = 0, time.monotonic()  # steps since the last drain, and its time
        self._lock = threading.RLock()  # one thread at a time fetches rows

    @tf.autograph.experimental.do_not_convert
    def record(self, gradients: Any, variables: Any, loss: Any = None) -> None:
        """Record one step. Call it before `optimizer.apply`: eagerly, in a `tf.function` or in a replica.

        Args:
            gradients: a list of tensors, `tf.IndexedSlices` and None, as from the tape, each shaped as its variable.
            variables: the variables (or other sources) in the same order, and the same ones at every step.
            loss: a number or tensor. If it is not scalar, the sum of its elements is recorded.

        Raises:
            TypeError, ValueError: `gradients` do not fit `variables`, or these are not those of the earlier steps.
        """
        if self._training:  # as a callback too: the gradients are recorded when the optimizer receives them
            self._thread.loss = vars(self._thread).get("loss") if loss is None else loss
        else:
            self._record(gradients, variables, loss, 1.0)

    @tf.autograph.experimental.do_not_convert
    def _record(self, gradients: Any, variables: Any, loss: Any, scale: Any) -> None:
        given, flat = tf.nest.flatten(gradients), tf.nest.flatten(variables)
        if len(given) != len(flat):
            what = f"gradients is {_sources.describe(gradients)}, variables is {_sources.describe(variables)}"
            counts = f"{len(given)} gradients for {len(flat)} variables"
            raise ValueError(f"GradientLog.record: {counts}: {what}. Give the list of tape.gradient(loss, variables).")
        if len(flat) != len(self.variables) or not all(map(operator.is_, flat, self.variables)) or not flat:
            self._follow(variables, flat)
        gradients = [g if g is None else as_gradient(g, v, n) for g, v, n in zip(given, flat, self.names, strict=True)]
        self.has_loss |= loss is not None
        gradients, loss, writes = sum_over_replicas(gradients, as_loss(np.nan if loss is None else loss))
        if writes and tf.executing_eagerly():
            self._count_steps(1)  # before this step is written: its update ratio is not known yet
            self._ring.write_eagerly(gradients, loss, scale)
        elif writes:
            self._ring.write(gradients, loss, scale)

    def _follow(self, variables: Any, flat: list) -> None:
        """Record these variables from now on. They must have the names of the earlier ones."""
        names = names_of(variables, self.names, new=not self.variables, updates=self.updates)
        self.variables = flat
        if not tf.distribute.get_strategy().extended.should_save_summary:
            self._outputs = []  # the chief worker writes them
        if self._ring is None or self.updates:  # the ring holds a copy of the weights
            weights = [_sources.as_variable(v) for v in flat] if self.updates else []
            with tf.init_scope():  # outside of the step that is being traced
                self.drain()
                self._ring = Ring(len(flat), weights, self.every, self.histograms or 0, self.capacity, self._next)
                nothing = self._ring.fetch(self._next)
                self._blocks = self._blocks or [nothing]
                self.names = names  # after the rows: another thread may read both now
                self._write(nothing)  # to report now, not after an epoch, that a file cannot be written

    def _count_steps(self, steps: int) -> None:
        self._since += steps
        late = self._outputs and time.monotonic() - self._drained > SECONDS
        if late or 2 * self._since > self.capacity * self.every:  # half of the ring: a train_step may apply twice
            self.drain()

    def drain(self) -> None:
        """Fetch the rows before they are overwritten, and write them to the files. Every read calls it."""
        if self._ring is None:
            return
        if not tf.executing_eagerly():
            raise RuntimeError("GradientLog: read inside a tf.function, where tensors have no values. Read it outside.")
        with self._lock:
            self._since, self._drained = 0, time.monotonic()
            rows = self._ring.fetch(self._next)
            if not len(rows.steps):
                return
            lost = int(rows.steps[0]) // self.every - self._next
            self._next += lost + len(rows.steps)
            self.lost += lost
            self._blocks.append(rows)
            self._write(rows)
        if lost:
            what = f"{lost} rows lost, the ring holds {self.capacity}"
            warnings.warn(f"GradientLog: {what}. Call log.drain() more often, or give a capacity.", stacklevel=2)

    def _write(self, rows: Rows) -> None:
        """Write rows to the files. After an error, warn once and stop writing to that file."""
        for output in list(self._outputs):
            try:
                output.write(Records(self.names, rows, self.has_loss))
            except (OSError, tf.errors.OpError) as error:
                self._outputs.remove(output)
                memory = "Training goes on, and all rows are kept in memory. Write them elsewhere with log.save(path)."
                warnings.warn(f"GradientLog: cannot write {output.path}: {error}. {memory}", stacklevel=2)

    @property
    def rows(self) -> Rows:  # type: ignore[override]
        """All rows at this moment."""
        with self._lock:
            self.drain()
            if len(self._blocks) > 1:
                self._blocks = [Rows(*map(np.concatenate, zip(*self._blocks, strict=True)))]
            return self._blocks[0] if self._blocks else Rows()

    def save(self, path: str | os.PathLike) -> None:
        """Write all rows and histograms to one compressed NumPy archive, which `load` reads back."""
        files.save(path, self.read())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "GradientLog":
        """Return the log in a file that `path=` or `save` wrote. It goes on with the next step and in the same csv."""
        records, outputs = files.load(path)
        log = cls(every=int(min(np.diff(records.steps), default=1)), updates="update_ratio" in records.kinds)
        log.__setstate__(records)
        log._outputs = outputs
        return log

    def __reduce__(self) -> tuple:
        settings = {name: getattr(self, name) for name in ("every", "updates", "histograms", "capacity")}
        return functools.partial(type(self), **settings), (), dataclasses.replace(self.read(), variables=())

    def __setstate__(self, records: Records) -> None:
        """Go on after these rows."""
        self.names, self.has_loss = records.names, records.has_loss
        self.clipping, self.lost = records.clipping, records.lost
        self._blocks = [records.rows] if records.names else []
        self._next = int(records.steps[-1]) // self.every + 1 if len(records) else 0

    def to_tensorboard(self, logdir: str | os.PathLike) -> None:
        """Write all rows and histograms to a folder for TensorBoard, as `logdir=` does while the model trains."""
        files.EventFile(files.path_of("GradientLog.to_tensorboard: logdir", logdir)).write(self.read())


def names_of(variables: Any, known: tuple[str, ...], *, new: bool, updates: bool) -> tuple[str, ...]:
    """Return the names of `variables`. They must be the `known` names; in a `new` model, numbers may differ."""
    names, flat = tuple(_sources.names(variables)), tf.nest.flatten(variables)
    if not flat:
        raise TypeError("GradientLog.record: variables holds nothing. Give variables; build a Keras model before.")
    for variable in flat:
        if _sources.watchable(variable)[1] is None:
            raise TypeError(f"GradientLog.record: variables holds {_sources.refusal(variable)}")
        if updates and _sources.as_variable(variable) is None:
            raise TypeError("GradientLog.record: updates=True follows the weights. Tensors have none; give variables.")
    # Keras numbers layers anew, and leaves the name of a Sequential out when it loads one
    own = [["/".join(re.sub(r"_\d+(?=/|$)", "", name).split("/")[-2:]) for name in each] for each in (names, known)]
    names = known if new and own[0] == own[1] else names
    if known and names != known:
        needed = "One log holds the same variables at every step. Make a GradientLog for each set of variables."
        raise ValueError(f"GradientLog.record: the variables are {some(names)}, and were {some(known)}. {needed}")
    return names


def as_gradient(gradient: Any, variable: Any, name: str) -> Any:
    """Return `gradient` as a tensor or slices. Raise an error if it cannot be the gradient of `variable`."""
    if isinstance(gradient, tf.IndexedSlices) and gradient.dense_shape is None:
        gradient = tf.IndexedSlices(gradient.values, gradient.indices, tf.shape(variable))
    tensor = isinstance(gradient, (tf.Tensor, tf.IndexedSlices)) and _sources.is_float(gradient)
    shape = getattr(variable, "shape", ())  # a number has none
    if tensor and gradient.shape.is_compatible_with(shape):
        return gradient
    what = f"GradientLog.record: the gradient of {name!r} is {_sources.describe(gradient)}"
    if tensor:
        raise ValueError(f"{what}; the variable has shape {shape}. Give both lists in the same order.")
    raise TypeError(f"{what}. A float tensor of TensorFlow or None is needed. Write log.record(gradients, variables).")


def as_loss(loss: Any) -> tf.Tensor:
    """Return the loss as a float32 scalar, the sum of its elements."""
    if isinstance(loss, tf.Tensor) and loss.dtype == tf.float32 and loss.shape.rank == 0:
        return loss  # saves two eager operations
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        tensor = tf.convert_to_tensor(np.float64(loss) if type(loss) in (int, float) else loss)  # also above float32
        if tensor.dtype.is_floating or tensor.dtype.is_integer:
            return tf.reduce_sum(tf.cast(tensor, tf.float32))
    raise TypeError(f"GradientLog.record: loss is {_sources.describe(loss)}. A number or a tensor is needed, or None.")
