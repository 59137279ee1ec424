"""A `GradientLog` on disk. `CsvFile` and `EventFile` grow while it trains; `save` writes and `load` reads all of it."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import socket
import time
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit._sources import describe
from tapekit.logs.records import FIELDS, Records
from tapekit.logs.ring import NO_COUNTS, STATISTICS

SCALARS, HISTOGRAMS = ({"plugin_data": {"plugin_name": name}} for name in ("scalars", "histograms"))  # plugins


def path_of(what: str, path: Any, refused: str = "") -> str:
    """Return `path` as a string. Raise an error if it is no file name, or if it ends with `refused` or is a folder."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{what} is {describe(path)}. A name is needed. Write it as a string.")
    if refused and (os.fspath(path).endswith(refused) or os.path.isdir(path)):
        raise ValueError(
            f"{what} is {os.fspath(path)!r}. Rows are written as csv while it trains, or saved as one NumPy archive "
            "afterwards. Write GradientLog(path='run.csv') or log.save('run.npz')."
        )
    return os.fspath(path)


@dataclasses.dataclass
class CsvFile:
    """Writes rows as csv: after the first `end` bytes of a file, or into a new file if `end` is 0.

    The file is closed after each write, so that a killed process loses no row that was written.
    """

    path: str
    end: int = 0

    def write(self, records: Records) -> None:
        """Append the rows, with a header before the first. An incomplete line after `end` is cut off."""
        text = io.StringIO()
        if not self.end:
            columns = [f"{name}.{kind}" for kind in records.kinds for name in records.names]
            csv.writer(text, lineterminator="\n").writerow(["step", "loss", "global_norm", *columns])
            if os.path.isfile(self.path) and os.path.getsize(self.path):
                raise ValueError(f"GradientLog: {self.path} exists. Continue it with GradientLog.load(path).")
        formats = "%d" + ",%.9g" * records.rows.shape[1]  # 9 digits restore a float32 exactly
        np.savetxt(text, np.column_stack([records.steps, records.rows]), formats)
        data = text.getvalue().encode()
        with open(self.path, "r+b" if self.end else "wb") as file:
            file.truncate(self.end)
            file.seek(self.end)
            file.write(data)
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
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.tapekit"
            self.file = tf.io.TFRecordWriter(os.path.join(self.path, name))
            self._append(file_version="brain.Event:2")
        columns = ({"loss": records.loss} if records.has_loss else {}) | {"global_norm": records.global_norm}
        for kind in ("norm", "max_abs", "nonfinite", "missing", *records.kinds[len(STATISTICS) :]):
            columns |= zip((f"{kind}/{name}" for name in records.names), getattr(records, kind).T, strict=True)
        counted = records.histogram_steps
        for row, step in enumerate(records.steps.tolist()):
            found = []
            for tag, column in columns.items():
                number = {"dtype": 1, "float_val": [float(column[row])], "tensor_shape": {}}  # 1 is float32
                found.append({"tag": tag, "tensor": number, "metadata": SCALARS})
            for name in records.names if step in counted else ():
                buckets = tf.make_tensor_proto(_buckets(*records.histogram(name, step)))
                found.append({"tag": f"gradient/{name}", "tensor": buckets, "metadata": HISTOGRAMS})
            self._append(step=step + 1, summary={"value": found})
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
    arrays = {name: getattr(records, name) for name in FIELDS} | {"clipping": json.dumps(records.clipping)}
    with open(path_of("GradientLog.save: path", path, ".csv"), "wb") as file:  # NumPy would add a suffix to a name
        np.savez_compressed(file, **arrays)


def load(path: Any) -> tuple[int | None, Records]:
    """Return ``(end, records)``: the length of a csv file in bytes (None for an archive), and the rows of the file."""
    data = pathlib.Path(path_of("GradientLog.load: path", path)).read_bytes()
    try:
        if data[:2] != b"PK":  # with which a zip archive begins
            return _load_csv(data)
        with np.load(io.BytesIO(data)) as file:
            fields = {name: file[name] for name in FIELDS}
        texts = {"names": tuple(fields["names"].tolist()), "clipping": json.loads(str(fields["clipping"]))}
        return None, Records(**fields | texts)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"GradientLog.load: {path} is not a file of GradientLog ({error}). Give a file that GradientLog(path=...) "
            "or log.save(...) wrote."
        ) from error


def _load_csv(data: bytes) -> tuple[int, Records]:
    whole, data = data, data[: data.rfind(b"\n") + 1]  # a process that was killed may leave an incomplete last line
    lines = data.decode("utf-8-sig").splitlines()
    header = next(csv.reader(lines), [])
    if not header and b"step,loss,global_norm,".startswith(whole[:22]):
        return 0, Records((), np.zeros([0], np.int64), np.zeros([0, 2], np.float32), NO_COUNTS)
    if header[:3] != ["step", "loss", "global_norm"]:
        raise ValueError(f"it begins with {whole[:40].decode(errors='replace').splitlines()[0]!r}")
    table = np.loadtxt(lines[1:], delimiter=",", ndmin=2) if lines[1:] else np.zeros([0, len(header)])
    names = tuple(column.removesuffix(".norm") for column in header if column.endswith(".norm"))
    steps, rows = table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32)
    updates, has_loss = header[-1].endswith(".update_ratio"), bool(np.isfinite(rows[:, 0]).any())
    return len(data), Records(names, steps, rows, NO_COUNTS, updates, has_loss)
