"""A `GradientLog` on disk. `CsvFile` and `EventFile` grow while it trains; `save` writes and `load` reads all of it."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import time
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import describe
from tapekit.logs.records import Records
from tapekit.logs.ring import CODES, STATISTICS, Rows

HEAD = b"step,loss,global_norm"  # with which a csv file begins
SCALARS, HISTOGRAMS = ({"plugin_data": {"plugin_name": name}} for name in ("scalars", "histograms"))  # of TensorBoard


def path_of(what: str, path: Any, refused: str = "") -> str:
    """Return `path` as a string. Raise an error if it is no file name, or if it ends with `refused` or is a folder."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{what} is {describe(path)}. A name is needed. Write it as a string.")
    if refused and (os.fspath(path).endswith(refused) or os.path.isdir(path)):
        kinds = "Rows are written as csv while it trains, and saved as a NumPy archive"
        raise ValueError(f"{what} is {str(path)!r}. {kinds}. Write GradientLog(path='run.csv') or log.save('run.npz').")
    return os.fspath(path)


@dataclasses.dataclass
class CsvFile:
    """Writes the columns of `to_dict` after the first `end` bytes of a file."""

    path: str
    end: int = 0

    def write(self, records: Records) -> None:
        """Append the rows, with a header before the first. An incomplete line after `end` is cut off."""
        text, columns = io.StringIO(), records.to_dict()
        if not self.end:
            if os.path.isfile(self.path) and os.path.getsize(self.path):
                raise ValueError(f"GradientLog: {self.path} exists. Continue it with GradientLog.load(path).")
            csv.writer(text, lineterminator="\n").writerow(columns)
        formats = "%d" + ",%.9g" * (len(columns) - 1)  # 9 digits restore a float32 exactly
        np.savetxt(text, np.column_stack(list(columns.values())), formats)
        data = text.getvalue().encode()
        with open(self.path, "r+b" if self.end else "wb") as file:  # closed each time, so that a kill loses no row
            file.seek(self.end)
            file.write(data)
            file.truncate()
        self.end += len(data)


@dataclasses.dataclass
class EventFile:
    """Writes rows and histograms into a folder for TensorBoard. The `tensorboard` package is not needed."""

    path: str
    file: Any = None

    def write(self, records: Records) -> None:
        """Append the rows. The first step is 1, as in the TensorBoard callback of Keras."""
        if self.file is None:
            tf.io.gfile.makedirs(self.path)
            self.file = tf.io.TFRecordWriter(f"{self.path}/events.out.tfevents.{time.time_ns()}.tapekit")
            self._append(file_version="brain.Event:2")
        columns = ({"loss": records.loss} if records.has_loss else {}) | {"global_norm": records.global_norm}
        for kind in ("norm", "max_abs", "nonfinite", "missing", *records.kinds[len(STATISTICS) :]):
            columns |= zip((f"{kind}/{name}" for name in records.names), getattr(records, kind).T, strict=True)
        for row, step in enumerate(records.steps.tolist()):
            values = []
            for tag, column in columns.items():
                number = {"dtype": 1, "float_val": [float(column[row])], "tensor_shape": {}}  # 1 is float32
                values.append({"tag": tag, "tensor": number, "metadata": SCALARS})
            for name in records.names if step in records.histogram_steps else ():
                buckets = tf.make_tensor_proto(_buckets(*records.histogram(name, step)))
                values.append({"tag": f"gradient/{name}", "tensor": buckets, "metadata": HISTOGRAMS})
            self._append(step=step + 1, summary={"value": values})
        self.file.flush()

    def _append(self, **event: Any) -> None:
        self.file.write(tf.compat.v1.Event(wall_time=time.time(), **event).SerializeToString())


def _buckets(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return ``[left edge, right edge, count]`` of each bin, `[buckets, 3]`; neighbouring empty bins are joined."""
    filled = np.pad(counts > 0, 1)
    places = np.flatnonzero(filled[1:] | filled[:-1])
    lower, upper = places[:-1], places[1:]
    return np.stack([edges[lower], edges[upper], np.add.reduceat(counts, lower) if len(lower) else lower], 1)


def save(path: Any, records: Records) -> None:
    """Write all rows and histograms to a compressed NumPy archive."""
    state = json.dumps([records.names, records.has_loss, records.clipping, records.lost])
    with open(path_of("GradientLog.save: path", path, ".csv"), "wb") as file:  # NumPy would add a suffix to a name
        np.savez_compressed(file, state=np.array(state), **records.rows._asdict())


def load(path: Any) -> tuple[Records, list[CsvFile]]:
    """Return the rows of a file, and a list of the file itself if new rows can be appended to it."""
    path = path_of("GradientLog.load: path", path)
    data = pathlib.Path(path).read_bytes()
    try:
        if data[:2] == b"PK":  # with which a zip archive begins
            with np.load(io.BytesIO(data)) as file:
                names, *state = json.loads(str(file["state"]))
                return Records(tuple(names), Rows(*(file[field] for field in Rows._fields)), *state), []
        return _read_csv(path, data)
    except (KeyError, ValueError, ZeroDivisionError, zipfile.BadZipFile) as error:
        what = f"GradientLog.load: {path} is not a file of GradientLog ({error})"
        raise ValueError(f"{what}. Give a file that GradientLog(path=...) or log.save(...) wrote.") from error


def _read_csv(path: str, data: bytes) -> tuple[Records, list[CsvFile]]:
    if not HEAD.startswith(data[: len(HEAD)]):
        raise ValueError(f"it begins with {data[:40].decode(errors='replace').splitlines()[0]!r}")
    data = data[: data.rfind(b"\n") + 1]  # a process that was killed may leave an incomplete last line
    if not data:
        return Records(), [CsvFile(path)]
    lines = data.decode().splitlines()
    header = next(csv.reader(lines))
    names = tuple(column.removesuffix(".missing") for column in header if column.endswith(".missing"))
    numbers = np.loadtxt(lines[1:], delimiter=",", ndmin=2) if lines[1:] else np.zeros([0, len(header)])
    _, loss, norm, *columns = numbers.astype(np.float32).T
    table = np.reshape(columns, [len(columns) // len(names), len(names), len(numbers)]).transpose(2, 0, 1)
    table[:, STATISTICS.index("nonfinite")][table[:, -1] > 0] = np.nan  # the last columns tell what is missing
    counts = np.zeros([0, len(names), CODES], np.int32)
    rows = Rows(numbers[:, 0].astype(np.int64), loss, norm, table[:, :-1], counts=counts)
    return Records(names, rows, bool(np.isfinite(loss).any())), [CsvFile(path, len(data))]
