"""Gradients of a training run, step by step: `GradientLog`, for a loop of one's own and for Keras `fit`.

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
import re
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tapekit import _sources
from tapekit._names import place_of, some
from tapekit.logs import distributed, files
from tapekit.logs.findings import findings, table
from tapekit.logs.fit import FitRecorder
from tapekit.logs.ring import Ring
from tapekit.logs.statistics import STATISTICS, as_gradient, as_loss, dense

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
    """A record of the real gradients of every step, in any loop and in `model.fit(callbacks=[log])`.

    Statistics are computed beside the gradients, on their device, and wait there in a ring of `capacity` rows; reading
    the log drains it. The gradients of `fit` are those before clipping, without the loss scale, and, under
    `tf.distribute`, summed over the replicas (as are the losses: scale each by the global batch, as Keras does).

    Args:
        every: record every n-th step only; the others are counted and cost nothing.
        updates: also ||w_new - w_old|| / ||w_old||, from a copy of the weights; `record` then comes before the update.
        path: a csv file to which rows are appended as they are drained, by the chief only. `load` reads it back.
        capacity: rows that the ring holds. A `tf.function` loop that makes more between two reads loses the oldest.

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
        self.lost = 0  # rows that the ring overran
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []  # steps and rows, as fetched
        self._variables: list = []
        self._ring: Ring | None = None
        self._next = 0  # the row to fetch next
        self._since = 0  # steps since the last drain, as far as Python has seen them
        self._file_end = 0  # bytes
        self._chief = True
        self._fit = FitRecorder(self._record)

    @tf.autograph.experimental.do_not_convert
    def record(self, gradients: Any, variables: Any, loss: Any = None) -> None:
        """Add one step, before `optimizer.apply`: eagerly, in a `tf.function` (jit-compiled too) or in a replica.

        Args:
            gradients: a list of tensors, `tf.IndexedSlices` and None, as from the tape, each shaped as its variable.
            variables: the variables (or other sources), in the same order, and the same ones at every step.
            loss: a number or tensor; of one that is not scalar the sum, which is what was differentiated.

        Raises:
            TypeError: a member of `gradients` is not a gradient.
            ValueError: the two do not fit each other, or not the earlier records.
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
            self._follow(variables, flat)
        gradients = [as_gradient(*each) for each in zip(self.names, gradients, self._variables, strict=True)]
        loss = as_loss(loss)
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            gradients, loss = distributed.aggregate(replica, gradients, loss)
            self._chief = distributed.is_chief(replica.strategy.cluster_resolver)
            if not distributed.is_first_of_worker(replica):
                return  # the first writes what all of them share
        begins = self._ring is None
        if self._ring is None:
            weights = [_sources.as_variable(v) for v in self._variables] if self.updates else []
            size = {"every": self.every, "capacity": self.capacity, "start": self._next}
            self._ring = Ring(len(self.names), weights, **size)
        if tf.executing_eagerly():
            self._ring.write_eagerly([dense(g) for g in gradients], loss, scale)
            self._count_steps(1)
        else:
            self._ring.write(gradients, loss, scale)
        if begins and not self._file_end:  # what cannot be written is told now, not after an epoch
            self._write_file(np.zeros([0]), np.zeros([0, 0]))

    def _follow(self, variables: Any, flat: list) -> None:
        """Take `variables` for those of the log, if they can be."""
        names = tuple(_sources.names(variables))
        if not flat or not all(hasattr(v, "shape") for v in flat):
            raise TypeError(
                f"GradientLog.record: variables holds {some([_sources.describe(v) for v in flat]) or 'nothing'}. "
                "Variables or tensors are needed. Write log.record(gradients, variables); build a Keras model before."
            )
        if not self._variables and _unnumbered(names) == _unnumbered(self.names):  # loaded; Keras counts models anew
            names = self.names
        if self.names and names != self.names:
            raise ValueError(
                f"GradientLog.record: the variables are {some(names)}, and were {some(self.names)}. One log holds the "
                "same variables at every step. Make a GradientLog for each set of variables."
            )
        if self.updates and any(_sources.as_variable(v) is None for v in flat):
            raise TypeError("GradientLog.record: updates=True follows the weights. Tensors have none; give variables.")
        self.names, self._variables = names, flat
        if self.updates and self._ring is not None:  # which compares the old weights
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
                "GradientLog: the first batch called no model.optimizer.apply, so there was nothing to record. In a "
                "train_step with other optimizers call log.record(gradients, variables) yourself, a log for each."
            )
        self._count_steps(batch - self._batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.drain()

    def _count_steps(self, steps: int) -> None:
        self._since += steps
        if 2 * self._since > self.capacity * self.every:  # half: a train_step may apply twice
            self.drain()

    def drain(self) -> None:
        """Fetch the rows that wait on the device; every other way of reading does it too.

        Worth a call now and then in a loop over a `tf.function` of your own that reads the log only at its end.
        """
        self._since = 0
        if self._ring is None:
            return
        if not tf.executing_eagerly():
            raise RuntimeError("GradientLog: read inside a tf.function, where nothing has a number. Read it outside.")
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
                "or give it a larger capacity.",
                stacklevel=2,
            )

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """All the steps and rows."""
        self.drain()
        if len(self._blocks) > 1:
            steps, rows = zip(*self._blocks, strict=True)
            self._blocks = [(np.concatenate(steps), np.concatenate(rows))]
        return self._blocks[0] if self._blocks else (np.zeros([0], np.int64), np.zeros([0, 2], np.float32))

    def _column(self, name: str) -> np.ndarray:
        """One statistic of every variable, `[rows, variables]`."""
        rows, width = self._table()[1], len(self.names)
        start = 2 + COLUMNS.index(name) * width
        found = rows[:, start : start + width]
        return found if found.shape[1] == width and width else np.full([len(rows), width], np.nan, np.float32)

    steps = property(lambda self: self._table()[0], doc="The number of each row's step, `[rows]`.")
    loss = property(lambda self: self._table()[1][:, 0], doc="The loss, NaN where it is not known, `[rows]`.")
    global_norm = property(lambda self: self._table()[1][:, 1], doc="L2 norm of all gradients together, `[rows]`.")
    norm = property(lambda self: self._column("norm"), doc="L2 norms, `[rows, variables]`.")
    mean = property(lambda self: self._column("mean"), doc="Means, `[rows, variables]`.")
    std = property(lambda self: self._column("std"), doc="Standard deviations, `[rows, variables]`.")
    max_abs = property(lambda self: self._column("max_abs"), doc="Largest magnitudes, `[rows, variables]`.")
    zero_fraction = property(lambda self: self._column("zero_fraction"), doc="Share of zeros, `[rows, variables]`.")
    missing = property(lambda self: np.isnan(self._column("nonfinite")), doc="Whether None, `[rows, variables]`.")
    update_ratio = property(lambda self: self._column("update_ratio"), doc="Of norms, `[rows, variables]`.")

    @property
    def nonfinite(self) -> np.ndarray:
        """Numbers of NaN and infinite elements, which no other statistic counts, `[rows, variables]`."""
        return np.nan_to_num(self._column("nonfinite")).astype(np.int64)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return COLUMNS if self.updates else STATISTICS

    def __len__(self) -> int:
        return len(self.steps)

    def __bool__(self) -> bool:
        return True  # an empty log is a log

    def __getitem__(self, name: str) -> VariableLog:
        """The rows of one variable, by its name or the end of it: ``log["dense/kernel"]``."""
        place = place_of("GradientLog", self.names, name)
        return VariableLog(self.steps, *(getattr(self, field)[:, place] for field in VariableLog._fields[1:]))

    def to_dict(self) -> dict[str, np.ndarray]:
        """Columns for `pandas.DataFrame`: step, loss, global_norm, and ``dense/kernel.norm`` and so on."""
        columns = {"step": self.steps, "loss": self.loss, "global_norm": self.global_norm}
        for name in self.names:
            own = self[name]
            columns |= {f"{name}.{field}": getattr(own, field) for field in (*self._kinds, "missing")}
        return columns

    def __repr__(self) -> str:
        return table(self)

    def findings(self) -> tuple[str, ...]:
        """What is wrong, in sentences that name the first step, the variable and the threshold; empty if nothing is."""
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
        """Write everything to one compressed ``.npz``, which `load` reads back."""
        steps, rows = self._table()
        np.savez_compressed(path, steps=steps, rows=rows, names=np.array(self.names, str), updates=self.updates)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "GradientLog":
        """A log from the file of `path=` or of `save`. Training that records into it goes on with the next step.

        A last line that a kill has torn is left out, and overwritten by the next rows of that log.
        """
        path = pathlib.Path(path)
        kept = path.suffix == ".npz"
        end, names, updates, steps, rows = (files.read_npz if kept else files.read)(path)
        log = cls(updates=updates, path=None if kept else path)
        log.names, log._blocks, log._file_end = tuple(names), [(steps, rows)], end
        if len(steps):
            log.every = int(np.diff(steps).min()) if len(steps) > 1 else 1
            log._next = int(steps[-1]) // log.every + 1
        return log

    def to_tensorboard(self, logdir: str | os.PathLike) -> None:
        """Write loss, norms, largest magnitudes and update ratios as TensorBoard scalars, a tag for each variable."""
        files.write_scalars(os.fspath(logdir), self)


def _unnumbered(names: tuple[str, ...]) -> list[str]:
    """``sequential_1/dense/kernel`` -> ``dense/kernel``: a loaded Sequential leaves its own name out."""
    return ["/".join(re.sub(r"_\d+(?=/|$)", "", name).split("/")[-2:]) for name in names]
