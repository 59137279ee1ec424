"""`GradientLog`: statistics of the gradients of every training step, in your own loop and in Keras `fit`.

    log = tapekit.GradientLog()
    model.fit(x, y, callbacks=[log])                            # Keras, or
    log.record(gradients, variables, loss=loss)                 # your loop, before optimizer.apply, or
    loss, gradients = tapekit.value_and_gradient(fn, variables, log=log)

    print(log)                 # the last step as a table
    log.norm, log["dense/kernel"].norm                          # arrays
    print(*log.findings(), sep="\\n")                           # what is wrong, in sentences

>>> w = tf.Variable([3.0, 4.0], name="w")
>>> log = GradientLog()
>>> for _ in range(3):
...     log.record([2.0 * w], [w], loss=tf.reduce_sum(w**2))
...     _ = w.assign(0.5 * w)
>>> log["w"].norm.tolist(), log.loss.tolist()
([10.0, 5.0, 2.5], [25.0, 6.25, 1.5625])
"""

import os
import pathlib
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tapekit import _sources
from tapekit._names import place_of
from tapekit.logs import distributed, files, inputs
from tapekit.logs.findings import findings, table
from tapekit.logs.fit import FitRecorder
from tapekit.logs.ring import Ring
from tapekit.logs.statistics import STATISTICS, real_and_dense

COLUMNS = (*STATISTICS, "update_ratio")


class VariableLog(NamedTuple):
    """The rows of one variable, as arrays `[rows]`."""

    steps: np.ndarray
    norm: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    max_abs: np.ndarray
    zero_fraction: np.ndarray
    nonfinite: np.ndarray
    missing: np.ndarray
    update_ratio: np.ndarray


class GradientLog(keras.callbacks.Callback):
    """A record of the gradients of every step, in any loop and in `model.fit(callbacks=[log])`.

    The statistics are computed on the device of the gradients and wait there in a ring buffer of `capacity` rows.
    Reading the log fetches them. The gradients of `fit` are recorded before clipping and without the loss scale. Under
    `tf.distribute` gradients and losses are summed over the replicas: divide each loss by the global batch size.

    Args:
        every: record every n-th step only. The other steps are counted and cost nothing.
        updates: also record ||w_new - w_old|| / ||w_old||, from a copy of the weights before the update.
        path: a csv file to which the chief appends the rows as they are fetched. `load` reads it back.
        capacity: rows that the ring buffer holds. A `tf.function` that writes more between two reads loses the oldest.

    Raises:
        ValueError: `every` or `capacity` is not a positive integer.

    Example:
        >>> log = GradientLog()
        >>> log.record([tf.constant([3.0, -4.0])], [tf.Variable([0.0, 0.0], name="w")])
        >>> print(log)
        step 0 (row 1), loss nan, global norm 5
        variable      norm      mean       std   max_abs     zeros  not finite
        w                5      -0.5       3.5         4        0%           0
    """

    def __init__(self, *, every: int = 1, updates: bool = False, path: Any = None, capacity: int = 1024):
        super().__init__()
        for name, value in (("every", every), ("capacity", capacity)):
            if type(value) is not int or value < 1:
                raise ValueError(f"GradientLog: {name} is {value!r}. A positive integer is needed. Write {name}=1.")
        self.every, self.updates, self.capacity = every, updates, capacity
        self.path = None if path is None else pathlib.Path(path)
        self.names: tuple[str, ...] = ()
        self.lost = 0  # rows that were overwritten before they were fetched
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []  # steps and rows, as fetched
        self._variables: list = []
        self._ring: Ring | None = None
        self._next = 0  # the row to fetch next
        self._since = 0  # steps since the last drain that Python has seen
        self._file_end = 0  # bytes
        self._chief = True
        self._fit = FitRecorder(self._record)

    @tf.autograph.experimental.do_not_convert
    def record(self, gradients: Any, variables: Any, loss: Any = None) -> None:
        """Record one step. Call it before `optimizer.apply`: eagerly, in a `tf.function` or in a replica.

        Args:
            gradients: a list of tensors, `tf.IndexedSlices` and None, as from the tape, each shaped as its variable.
            variables: the variables (or other sources) in the same order, and the same ones at every step.
            loss: a number or tensor. If it is not scalar, the sum of its elements is recorded.

        Raises:
            TypeError: a member of `gradients` is not a gradient.
            ValueError: `gradients` do not fit `variables`, or `variables` are not those of the earlier steps.
        """
        self._record(gradients, variables, loss, 1.0)

    @tf.autograph.experimental.do_not_convert
    def _record(self, gradients: Any, variables: Any, loss: Any, scale: Any) -> None:
        gradients, flat = tf.nest.flatten(gradients), tf.nest.flatten(variables)
        if len(gradients) != len(flat):
            raise ValueError(
                f"GradientLog.record: {len(gradients)} gradients for {len(flat)} variables. Each variable needs its "
                "gradient, or None. Give both lists as the tape has them: tape.gradient(loss, variables)."
            )
        known = self._variables
        if not known or len(flat) != len(known) or any(a is not b for a, b in zip(flat, known, strict=True)):
            self._set_variables(variables, flat)
        gradients = inputs.as_gradients(gradients, flat, self.names)
        loss = inputs.as_loss(loss)
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            gradients, loss = distributed.aggregate(replica, gradients, loss)
            self._chief = distributed.is_chief(replica.strategy.cluster_resolver)
            if not distributed.is_first_of_worker(replica):
                return  # the first replica writes the sum
        begins = self._ring is None
        if self._ring is None:
            weights = [_sources.as_variable(v) for v in self._variables] if self.updates else []
            size = {"every": self.every, "capacity": self.capacity, "start": self._next}
            self._ring = Ring(len(self.names), weights, **size)
        if tf.executing_eagerly():
            self._ring.write_eagerly(real_and_dense(gradients), loss, scale)
            self._count_steps(1)
        else:
            self._ring.write(gradients, loss, scale)
        if begins and not self._file_end:  # report at once, not after an epoch, that the file cannot be written
            self._write_file(np.zeros([0]), np.zeros([0, 0]))

    def _set_variables(self, variables: Any, flat: list) -> None:
        """Record `variables` from now on."""
        new = not self._variables
        self.names = inputs.names_of(variables, self.names, new=new, updates=self.updates)
        self._variables = flat
        if self.updates and self._ring is not None:  # the ring holds a copy of the weights of other variables
            with tf.init_scope():  # outside of the step that is being traced
                self.drain()
            self._ring = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._fit.begin(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch = batch
        self._fit.arm()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._ring is None:
            raise RuntimeError(
                "GradientLog: the first batch did not call model.optimizer.apply, so there was nothing to record. In a "
                "train_step with other optimizers call log.record(gradients, variables) yourself, with a log for each."
            )
        self._count_steps(batch - self._batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.drain()

    def _count_steps(self, steps: int) -> None:
        self._since += steps
        if 2 * self._since > self.capacity * self.every:  # half of the ring: a train_step may apply twice
            self.drain()

    def drain(self) -> None:
        """Fetch the rows that wait on the device. Every other way of reading calls it.

        Call it now and then in a loop over your own `tf.function`, so that no row is overwritten before it is read.
        """
        self._since = 0
        if self._ring is None:
            return
        if not tf.executing_eagerly():
            raise RuntimeError("GradientLog: read inside a tf.function, where tensors have no values. Read it outside.")
        numbers, rows = self._ring.fetch(self._next)
        if not len(rows):
            return
        lost, self._next = int(numbers[0]) - self._next, int(numbers[-1]) + 1
        self.lost += lost
        self._blocks.append((numbers * self.every, rows))
        self._write_file(*self._blocks[-1])
        if lost:
            warnings.warn(
                f"GradientLog: {lost} rows lost, the ring holds {self.capacity}. Read the log more often (log.drain()) "
                "or make it with a larger capacity.",
                stacklevel=2,
            )

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all steps `[rows]` and all rows `[rows, columns]`."""
        self.drain()
        if len(self._blocks) > 1:
            steps, rows = zip(*self._blocks, strict=True)
            self._blocks = [(np.concatenate(steps), np.concatenate(rows))]
        return self._blocks[0] if self._blocks else (np.zeros([0], np.int64), np.zeros([0, 2], np.float32))

    def _column(self, name: str) -> np.ndarray:
        """Return one statistic of every variable, `[rows, variables]`."""
        rows, width = self._table()[1], len(self.names)
        start = 2 + COLUMNS.index(name) * width
        found = rows[:, start : start + width]
        return found if found.shape[1] == width and width else np.full([len(rows), width], np.nan, np.float32)

    steps = property(lambda self: self._table()[0], doc="The step of each row, `[rows]`.")
    loss = property(lambda self: self._table()[1][:, 0], doc="The loss, NaN if it was not given, `[rows]`.")
    global_norm = property(lambda self: self._table()[1][:, 1], doc="L2 norm of all gradients together, `[rows]`.")
    norm = property(lambda self: self._column("norm"), doc="L2 norms, `[rows, variables]`.")
    mean = property(lambda self: self._column("mean"), doc="Means, `[rows, variables]`.")
    std = property(lambda self: self._column("std"), doc="Standard deviations, `[rows, variables]`.")
    max_abs = property(lambda self: self._column("max_abs"), doc="Largest magnitudes, `[rows, variables]`.")
    zero_fraction = property(lambda self: self._column("zero_fraction"), doc="Share of zeros, `[rows, variables]`.")
    missing = property(lambda self: np.isnan(self._column("nonfinite")), doc="Whether it is None, `[rows, variables]`.")
    update_ratio = property(lambda self: self._column("update_ratio"), doc="||update|| / ||w||, `[rows, variables]`.")

    @property
    def nonfinite(self) -> np.ndarray:
        """Number of NaN and infinite elements, which the other statistics leave out, `[rows, variables]`."""
        return np.nan_to_num(self._column("nonfinite")).astype(np.int64)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return COLUMNS if self.updates else STATISTICS

    def __len__(self) -> int:
        return len(self.steps)

    def __bool__(self) -> bool:
        return True  # also if it is empty: `if log:` asks whether there is a log

    def __getitem__(self, name: str) -> VariableLog:
        """Return the rows of one variable, by its name or the end of its name: ``log["dense/kernel"]``."""
        place = place_of("GradientLog", self.names, name)
        return VariableLog(self.steps, *(getattr(self, field)[:, place] for field in VariableLog._fields[1:]))

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return columns for `pandas.DataFrame`: step, loss, global_norm, ``dense/kernel.norm`` and so on."""
        columns = {"step": self.steps, "loss": self.loss, "global_norm": self.global_norm}
        for name in self.names:
            own = self[name]
            columns |= {f"{name}.{field}": getattr(own, field) for field in (*self._kinds, "missing")}
        return columns

    def __repr__(self) -> str:
        return table(self)

    def findings(self) -> tuple[str, ...]:
        """Return what is wrong, in sentences that name the first step, the variable and the threshold."""
        return findings(self)

    def _write_file(self, steps: np.ndarray, rows: np.ndarray) -> None:
        if self.path is None or not self._chief:
            return
        path, self.path = self.path, None
        header = ["step", "loss", "global_norm", *(f"{name}.{field}" for field in self._kinds for name in self.names)]
        try:
            self._file_end = files.append(path, self._file_end, header, steps, rows)
        except OSError as error:
            raise OSError(
                f"GradientLog: cannot write {path}: {error}. All rows are kept in memory, and no more are written. "
                "Write them elsewhere with log.save(path)."
            ) from error
        self.path = path

    def save(self, path: str | os.PathLike) -> None:
        """Write all rows to one compressed ``.npz`` file, which `load` reads back."""
        steps, rows = self._table()
        np.savez_compressed(path, steps=steps, rows=rows, names=np.array(self.names, str), updates=self.updates)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "GradientLog":
        """Return the log in a file that `path=` or `save` wrote. New records continue with the next step.

        If the process was killed while it wrote the last line, that line is left out, and overwritten by new rows.
        """
        path = pathlib.Path(path)
        saved = path.suffix == ".npz"
        end, names, updates, steps, rows = (files.read_npz if saved else files.read)(path)
        log = cls(updates=updates, path=None if saved else path)
        log.names, log._blocks, log._file_end = tuple(names), [(steps, rows)], end
        if len(steps):
            log.every = int(np.diff(steps).min()) if len(steps) > 1 else 1
            log._next = int(steps[-1]) // log.every + 1
        return log

    def to_tensorboard(self, logdir: str | os.PathLike) -> None:
        """Write loss, norms, largest magnitudes and update ratios as TensorBoard scalars, a tag for each variable."""
        files.write_scalars(os.fspath(logdir), self)
