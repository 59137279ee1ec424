"""A `GradientLog` on disk: `append` rows to csv, `read` csv and `read_npz`, `write_scalars` for TensorBoard."""

import csv
import importlib.util
import io
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf


def append(path: pathlib.Path, end: int, header: list[str], steps: np.ndarray, rows: np.ndarray) -> int:
    """Write rows after the first `end` bytes, with a header if `end` is 0, and return the new `end`.

    The file is closed each time, so that a killed process loses no row. An incomplete line after `end` is cut off.
    """
    text = io.StringIO()
    if not end:
        csv.writer(text, lineterminator="\n").writerow(header)
        if path.is_file() and path.stat().st_size:
            raise FileExistsError("it exists; GradientLog.load(path) continues it")
    line = "%d" + ",%.9g" * rows.shape[1] + "\n"  # 9 digits restore a float32 exactly
    text.writelines(line % (step, *row) for step, row in zip(steps.tolist(), rows.tolist(), strict=True))
    data = text.getvalue().encode()
    with open(path, "r+b" if end else "wb") as file:
        if end:
            file.truncate(end)
            file.seek(end)
        file.write(data)
    return end + len(data)


def read(path: pathlib.Path) -> tuple[int, list[str], bool, np.ndarray, np.ndarray]:
    """Return ``(end, names, whether there are update ratios, steps, rows)``, without an incomplete last line."""
    data = path.read_bytes()
    data = data[: data.rfind(b"\n") + 1]
    lines = data.decode("utf-8-sig").splitlines()
    if not lines:
        return 0, [], False, np.zeros([0], np.int64), np.zeros([0, 2], np.float32)
    header = next(csv.reader(lines[:1]))
    if header[:3] != ["step", "loss", "global_norm"]:
        raise ValueError(
            f"GradientLog.load: {path} begins with {lines[0][:40]!r}. A file of GradientLog(path=) is needed."
        )
    table = np.loadtxt(lines[1:], delimiter=",", ndmin=2) if lines[1:] else np.zeros([0, len(header)])
    names = [column.removesuffix(".norm") for column in header if column.endswith(".norm")]
    updates = header[-1].endswith(".update_ratio")
    return len(data), names, updates, table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32)


def read_npz(path: pathlib.Path) -> tuple[int, list[str], bool, np.ndarray, np.ndarray]:
    """Return the same from a file that `GradientLog.save` wrote."""
    with np.load(path) as file:
        return 0, file["names"].tolist(), bool(file["updates"]), file["steps"], file["rows"]


def write_scalars(logdir: str, log: Any) -> None:
    """Write loss, norms, largest magnitudes and update ratios as TensorBoard scalars, one tag for each variable."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "GradientLog.to_tensorboard: TensorBoard, which writes it, is missing. Run: pip install tensorboard"
        )
    tags = {"loss": log.loss, "global_norm": log.global_norm}
    for field in ("norm", "max_abs", "update_ratio")[: 2 + log.updates]:
        tags |= {f"{field}/{name}": getattr(log[name], field) for name in log.names}
    writer = tf.summary.create_file_writer(logdir)
    with writer.as_default():
        for tag, values in tags.items():
            for step, value in zip(log.steps, values, strict=True):
                tf.summary.scalar(tag, value, step=step)
    writer.close()
